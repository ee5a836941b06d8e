//! From `proto/acb/v1/*.proto` to committed Rust and the descriptor set that reflection serves.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto, SourceCodeInfo};

use super::Files;

/// Methods that server and core route by hand with their own codec, so that message bytes pass through unread. They
/// stand in the contract and in reflection, and must not stand in generated services.
const BY_HAND: [(&str, &str); 2] = [("MessageService", "PublishStream"), ("SubscriptionService", "Consume")];

const OUT: &str = "proto/src/generated";

pub(super) fn generate(root: &Path, files: &mut Files) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join("proto/acb/v1")).context("cannot read proto/acb/v1")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if Path::new(&name).extension().is_some_and(|e| e == "proto") {
            names.push(format!("acb/v1/{name}"));
        }
    }
    names.sort();
    let mut compiler = protox::Compiler::new([root.join("proto")])?;
    compiler.include_imports(true).include_source_info(true).open_files(&names)?;
    let set = compiler.file_descriptor_set();

    let folder = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .bytes(".")
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .out_dir(folder.path())
        .compile_fds(without_hot_methods(set.clone())?)?;
    for entry in fs::read_dir(folder.path())? {
        let entry = entry?;
        files.insert(format!("{OUT}/{}", entry.file_name().to_string_lossy()), fs::read(entry.path())?);
    }
    files.insert(format!("{OUT}/descriptor.bin"), without_comments(set).encode_to_vec());
    Ok(())
}

fn without_comments(mut set: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

fn without_hot_methods(mut set: FileDescriptorSet) -> Result<FileDescriptorSet> {
    for (service, method) in BY_HAND {
        let stripped = set.file.iter_mut().any(|file| strip(file, service, method));
        ensure!(stripped, "no method {service}.{method} in the contract: change BY_HAND with it");
    }
    Ok(set)
}

/// Takes one method out of a file, with its comments. Comments are found by index, so those behind it move up.
fn strip(file: &mut FileDescriptorProto, service: &str, method: &str) -> bool {
    let Some(service_at) = file.service.iter().position(|s| s.name() == service) else { return false };
    let found: &mut ServiceDescriptorProto = &mut file.service[service_at];
    let Some(method_at) = found.method.iter().position(|m| m.name() == method) else { return false };
    found.method.remove(method_at);
    if let Some(info) = &mut file.source_code_info {
        strip_comments(info, service_at as i32, method_at as i32);
    }
    true
}

fn strip_comments(info: &mut SourceCodeInfo, service_at: i32, method_at: i32) {
    /// Field numbers of descriptor.proto: services of a file, methods of a service.
    const SERVICE: i32 = 6;
    const METHOD: i32 = 2;
    info.location.retain_mut(|location| match &mut location.path[..] {
        [SERVICE, s, METHOD, m, ..] if *s == service_at && *m >= method_at => {
            let gone = *m == method_at;
            *m -= 1;
            !gone
        }
        _ => true,
    });
}
