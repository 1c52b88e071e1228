//! Compiles the protos in pure Rust: no `protoc` binary is needed.

use std::{env, path::PathBuf};

const PROTOS: [&str; 2] = ["touchline/notify/v1/notify.proto", "touchline/push/v1/push.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(PROTOS)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    std::fs::write(out.join("touchline_descriptor.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        // Payloads stay slices of the receive buffer: no copy.
        .bytes(".touchline.push.v1.PushRequest")
        .bytes(".touchline.push.v1.PushResult")
        .bytes(".touchline.push.v1.Acks")
        .bytes(".touchline.push.v1.Message.content")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
