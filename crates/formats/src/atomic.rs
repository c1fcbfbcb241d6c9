//! Files that are there whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

/// How the names of temporary files and folders begin and end; [`tidy`] knows them by it.
const PREFIX: &str = ".openelm-";
const SUFFIX: &str = ".tmp";

/// Writes `target` through a temporary file beside it, which takes its name only once its bytes are on the disk. After an
/// error there is no trace of it, and what `target` was before still stands.
///
/// # Errors
/// What `write` or the system reports.
pub fn write_file(target: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_file(folder_of(target))?;
    let mut writer = BufWriter::new(temporary.as_file());
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    temporary.as_file().sync_all()?;
    temporary.persist(target).map_err(|e| e.error)?;
    sync_folder(folder_of(target))
}

/// The same for a writer that wants a path and may put a new file there.
///
/// # Errors
/// What `write` or the system reports.
pub fn write_path(target: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_file(folder_of(target))?;
    let permissions = temporary.as_file().metadata()?.permissions();
    let path = temporary.into_temp_path();
    write(&path)?;
    let file = File::open(&path)?;
    file.set_permissions(permissions)?;
    file.sync_all()?;
    path.persist(target).map_err(|e| e.error)?;
    sync_folder(folder_of(target))
}

/// An empty file in `folder` with the usual permissions; it vanishes unless it is kept.
fn temporary_file(folder: &Path) -> io::Result<NamedTempFile> {
    builder(0o666).prefix(PREFIX).suffix(SUFFIX).tempfile_in(folder).map_err(|e| plain(e, folder))
}

/// An empty folder in `folder` with the usual permissions; it vanishes unless it is kept.
fn temporary_folder(folder: &Path) -> io::Result<TempDir> {
    builder(0o777).prefix(PREFIX).suffix(SUFFIX).tempdir_in(folder).map_err(|e| plain(e, folder))
}

/// The error of the system itself: the library adds the temporary name, which means nothing to the reader.
fn plain(error: io::Error, folder: &Path) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound {
        return io::Error::new(error.kind(), format!("the folder {} does not exist", folder.display()));
    }
    let source = error.get_ref().and_then(|wrapped| wrapped.source()?.downcast_ref::<io::Error>());
    source.and_then(io::Error::raw_os_error).map_or(error, io::Error::from_raw_os_error)
}

/// Fills a folder beside `target`, which takes its name only once `fill` is done. After an error there is no trace of it.
///
/// # Errors
/// What `fill` reports, and what the system does, as `failed` puts it; also if `target` exists.
pub fn write_folder<E>(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
    failed: impl Fn(io::Error) -> E,
) -> Result<(), E> {
    let temporary = temporary_folder(folder_of(target)).map_err(&failed)?;
    fill(temporary.path())?;
    sync_folder(temporary.path()).map_err(&failed)?;
    std::fs::rename(temporary.path(), target).map_err(&failed)?;
    // It has moved: there is nothing left to remove.
    let _ = temporary.keep();
    sync_folder(folder_of(target)).map_err(&failed)
}

/// Removes what writers that were killed left in `folder`. Nobody else may be writing there.
///
/// # Errors
/// What the system reports.
pub fn tidy(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if ours {
            // Of a link the link itself.
            let is_folder = entry.file_type()?.is_dir();
            if is_folder { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
        }
    }
    Ok(())
}

/// Removes the folder `target`, which loses its name before the first of its files goes.
///
/// # Errors
/// What the system reports.
pub fn remove_folder(target: &Path) -> io::Result<()> {
    let hidden = temporary_folder(folder_of(target))?;
    std::fs::rename(target, hidden.path().join("old"))?;
    hidden.close()
}

#[cfg(unix)]
fn builder(mode: u32) -> Builder<'static, 'static> {
    use std::os::unix::fs::PermissionsExt;
    let mut builder = Builder::new();
    builder.permissions(std::fs::Permissions::from_mode(mode));
    builder
}

#[cfg(not(unix))]
fn builder(_mode: u32) -> Builder<'static, 'static> {
    Builder::new()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes renames within `folder` last through a power cut, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        write_file(&target, |file| file.write_all(b"first")).unwrap();
        let failed = write_file(&target, |file| {
            file.write_all(b"second")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"first");
        let failed = write_path(&target, |path| {
            std::fs::write(path, b"third")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"first");
        let fill = |path: &Path| {
            std::fs::write(path.join("part"), b"x")?;
            Err(io::Error::other("disk full"))
        };
        let failed = write_folder(&folder.path().join("new"), fill, |e| e);
        assert!(failed.is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something is left over");
        write_folder(&folder.path().join("new"), |path| std::fs::write(path.join("whole"), b"x"), |e| e).unwrap();
        assert!(folder.path().join("new/whole").exists());
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write_folder(&at("whole"), |path| std::fs::write(path.join("part"), b"x"), |e| e).unwrap();
        std::fs::create_dir_all(at(".openelm-abc.tmp/half")).unwrap();
        std::fs::write(at(".openelm-def.tmp"), b"half").unwrap();
        // An editor's, and the user's own.
        std::fs::write(at(".notes.tmp"), b"of somebody else").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(at("whole"), at(".openelm-link.tmp")).unwrap();
        tidy(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(at("whole/part").exists() && at(".notes.tmp").exists());
        remove_folder(&at("whole")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_missing_is_named_and_the_temporary_name_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let file = write_file(&missing.join("file"), |_| Ok(())).unwrap_err().to_string();
        let nested = write_folder(&missing.join("folder"), |_| Ok(()), |e| e).unwrap_err().to_string();
        let expected = format!("the folder {} does not exist", missing.display());
        assert_eq!([file, nested], [expected.clone(), expected]);
    }
}
