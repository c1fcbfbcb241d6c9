//! Makes the JavaScript of a module of WebAssembly: openelm-web-bindgen MODULE.wasm FOLDER NAME

use std::env;

use anyhow::Context;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let mut argument = |what: &str| arguments.next().with_context(|| format!("say {what}"));
    let (module, folder, name) = (argument("which module")?, argument("which folder")?, argument("which name")?);
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).web(true)?.out_name(&name).typescript(false).remove_name_section(true);
    bindgen.remove_producers_section(true).generate(folder)
}
