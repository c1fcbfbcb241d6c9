//! Files that are there whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

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
    builder(0o666).prefix(".").suffix(".tmp").tempfile_in(folder)
}

/// Fills a folder beside `target`, which takes its name only once `fill` is done. After an error there is no trace of it.
///
/// # Errors
/// What `fill` or the system reports; also if `target` exists.
pub fn write_folder<E: From<io::Error>>(target: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let temporary: TempDir = builder(0o777).prefix(".").suffix(".tmp").tempdir_in(folder_of(target))?;
    fill(temporary.path())?;
    sync_folder(temporary.path())?;
    std::fs::rename(temporary.path(), target)?;
    // It has moved: there is nothing left to remove.
    let _ = temporary.keep();
    sync_folder(folder_of(target))?;
    Ok(())
}

/// Removes what writers that were killed left in `folder`. Nobody else may be writing there.
///
/// # Errors
/// What the system reports.
pub fn tidy(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') && name.ends_with(".tmp") {
            if path.is_dir() { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
        }
    }
    Ok(())
}

/// Removes the folder `target`, which loses its name before the first of its files goes.
///
/// # Errors
/// What the system reports.
pub fn remove_folder(target: &Path) -> io::Result<()> {
    let hidden = builder(0o777).prefix(".").suffix(".tmp").tempdir_in(folder_of(target))?;
    std::fs::rename(target, hidden.path())?;
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
        let failed: io::Result<()> = write_folder(&folder.path().join("new"), |path| {
            std::fs::write(path.join("part"), b"x")?;
            Err(io::Error::other("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something is left over");
        write_folder::<io::Error>(&folder.path().join("new"), |path| std::fs::write(path.join("whole"), b"x")).unwrap();
        assert!(folder.path().join("new/whole").exists());
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write_folder::<io::Error>(&at("whole"), |path| std::fs::write(path.join("part"), b"x")).unwrap();
        std::fs::create_dir_all(at(".abc.tmp/half")).unwrap();
        std::fs::write(at(".def.tmp"), b"half").unwrap();
        tidy(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(at("whole/part").exists());
        remove_folder(&at("whole")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
