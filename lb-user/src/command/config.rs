//! `weir config`: needs no daemon and no root.

use std::path::Path;

use serde_json::json;

use super::{print, print_json};
use crate::{
    cli::{ConfigCommand, GlobalArgs},
    config::{self, Config, WebConfig},
    exit::{Exit, Failure, OrFail as _},
};

/// Checks a file, shows the effective configuration or prints an example.
pub fn run(global: &GlobalArgs, command: &ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check { file } => check(global, file),
        ConfigCommand::Show { config } => show(global, config.as_deref()),
        ConfigCommand::Example if global.json => print_json(&json!({ "example": config::example() })),
        ConfigCommand::Example => print(&config::example()),
    }
}

/// A file with faults is a [`Failure`] that lists them all.
fn check(global: &GlobalArgs, file: &Path) -> Result<Exit, Failure> {
    let config = Config::load(file)?;
    if let Some(web) = &config.daemon.web_config {
        WebConfig::load(web)?;
    }
    if global.json {
        return print_json(&json!({ "file": file, "faults": [], "services": config.services.len() }));
    }
    print(&format!("{}\n", summary(file, &config)))
}

/// `weir.toml: no faults; 2 services named, and TCP groups found become services`
pub(super) fn summary(file: &Path, config: &Config) -> String {
    let named = match config.services.len() {
        0 => "no service named".to_owned(),
        1 => "1 service named".to_owned(),
        count => format!("{count} services named"),
    };
    let found = match (config.discovery.tcp, config.discovery.udp) {
        (true, true) => ", and TCP and UDP groups found become services",
        (true, false) => ", and TCP groups found become services",
        (false, true) => ", and UDP groups found become services",
        (false, false) => ", and discovery is off",
    };
    format!("{}: no faults; {named}{found}", file.display())
}

fn show(global: &GlobalArgs, file: Option<&Path>) -> Result<Exit, Failure> {
    let config = file.map(Config::load).transpose()?.unwrap_or_default();
    if global.json {
        return print_json(&config);
    }
    print(&config.to_toml().or_fail(Exit::Unexpected, "please report this")?)
}
