//! Pages that are written from the code. A test writes them anew and fails when they had changed, so that they are never
//! stale.

use std::path::Path;

fn fresh(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    if before != text {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        panic!("{} was stale and has been written anew: look at it and commit it", path.display());
    }
}

#[test]
fn the_page_of_metrics_is_fresh() {
    fresh("docs/guide/metrics.md", &acb_server::telemetry::catalogue::page());
}

#[test]
fn the_page_of_settings_is_fresh() {
    fresh("docs/guide/configuration.md", &acb_server::config::print::page());
}
