//! The pages that are written from the sections' descriptions: the reference and the commented example.
use std::fmt::Write as _;

use super::{SECTIONS, schema::Fallback};

const REFERENCE_HEAD: &str = r"# Configuration

<!-- Generated from lb-user/src/config; `WEIR_REGENERATE=1 cargo test -p lb-user --lib config::reference` writes it anew. -->

`weir run --config FILE` reads a TOML file; without one the defaults below hold and every TCP SO_REUSEPORT group found becomes a service.
What the command line says wins over the file.

- `weir config check FILE` prints every fault of a file with line, column, the value found, what would be right and the remedy, and
  ends with exit code 3 if there is one. Unknown keys are faults. A file with a fault is refused as a whole, at start and on reload.
- `weir config show --config FILE` prints the effective configuration with all defaults; `--json` for programs.
- `weir config example` prints a file to start from (the same as `deploy/weir.toml`).
";

const EXAMPLE_HEAD: &str = r"# Weir's configuration: every key, commented out, with its default or else an example. docs/configuration.md has the same as a page.
# Check a file with `weir config check FILE`.
";

/// Longest line of the example's comments, in characters.
const COMMENT_WIDTH: usize = 110;

/// The reference page, in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = REFERENCE_HEAD.to_owned();
    for section in SECTIONS {
        let _ = write!(page, "\n## `{}`\n\n{}\n\n", section.header(), section.help);
        for key in section.keys {
            let _ = writeln!(page, "- **`{}`**: {}; {}. {}", key.name, key.form, key.fallback, key.help);
        }
    }
    page
}

/// A file to start from: every key, commented out.
#[must_use]
pub fn example() -> String {
    let mut file = EXAMPLE_HEAD.to_owned();
    for section in SECTIONS {
        file.push('\n');
        comment(&mut file, section.help);
        let off = if section.repeated { "#" } else { "" };
        let _ = writeln!(file, "{off}{}", section.header());
        for key in section.keys {
            comment(&mut file, &format!("{} ({}).", key.help.trim_end_matches('.'), key.fallback));
            let value = if let Fallback::Value(value) = key.fallback { value } else { key.example };
            let _ = writeln!(file, "#{} = {}", key.name, if value == "[]" { key.example } else { value });
        }
    }
    file
}

fn comment(file: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > COMMENT_WIDTH {
            file.push('\n');
            width = 0;
        }
        file.push_str(if width == 0 { "# " } else { " " });
        file.push_str(word);
        width += 1 + length;
    }
    file.push('\n');
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Protocol, service};

    /// The committed file is the generated text; with `WEIR_REGENERATE=1` it is written.
    fn committed(file: &str, generated: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        if std::env::var_os("WEIR_REGENERATE").is_some() {
            std::fs::write(&path, generated).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == generated, "{file} is out of date: run `WEIR_REGENERATE=1 cargo test -p lb-user --lib config::reference`");
    }

    #[test]
    fn the_reference_page_is_current() {
        committed("docs/configuration.md", &reference());
    }

    #[test]
    fn the_example_is_current() {
        committed("deploy/weir.toml", &example());
    }

    #[test]
    fn the_example_as_it_stands_is_the_default() {
        assert_eq!(Config::parse("weir.toml", &example()).unwrap(), Config::default());
    }

    /// The example with every key switched on that a service of this protocol can have.
    fn everything(protocol: Protocol) -> String {
        let service = example().find("[[service]]").unwrap();
        let other = if protocol == Protocol::Tcp { "UDP only:" } else { "TCP only:" };
        let of_other = |name: &str| {
            let quic = protocol == Protocol::Tcp && name == "quic_worker_byte";
            quic || service::SCHEMA.keys.iter().any(|key| key.name == name && key.help.starts_with(other))
        };
        let on = |line: &str| if line.starts_with("# ") { line.to_owned() } else { line.trim_start_matches('#').to_owned() };
        let lines = |text: &str| text.lines().map(on).collect::<Vec<_>>();
        let (sections, services) = (lines(&example()[..service]), lines(&example()[service..]));
        let services = services.into_iter().filter(|line| !of_other(line.split(' ').next().unwrap()));
        let all: Vec<String> = sections.into_iter().chain(services).collect();
        let text = all.join("\n").replace("protocol = \"tcp\"", &format!("protocol = \"{protocol}\""));
        text.replace("quic = false", "quic = true").replace("_per_prefix = 0", "_per_prefix = 7")
    }

    #[test]
    fn the_example_with_every_key_switched_on_is_sound() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let config = Config::parse("weir.toml", &everything(protocol)).unwrap();
            let [service] = &config.services[..] else { panic!("{:?}", config.services) };
            assert_eq!((service.protocol, &service.weights[..], service.defence.deny.len()), (protocol, &[2, 1, 1][..], 1));
            let is_tcp = protocol == Protocol::Tcp;
            let tcp = (service.defence.syn_defence.is_some(), service.defence.new_connections_per_prefix);
            let udp = (service.quic.is_some(), service.defence.udp_bytes_per_prefix);
            assert_eq!((tcp, udp), if is_tcp { ((true, 7), (false, 0)) } else { ((false, 0), (true, 7)) });
        }
    }

    #[test]
    fn every_default_that_the_reference_states_is_the_one_that_holds() {
        const SERVICE: &str = "[[service]]\nname = \"web\"\nprotocol = \"tcp\"\nport = 80\naddress = \"::\"\n";
        let mut stated = 0;
        for section in SECTIONS {
            let head = if section.repeated { SERVICE.to_owned() } else { format!("{}\n", section.header()) };
            let silent = Config::parse("silent.toml", &head).unwrap();
            for key in section.keys {
                if let Fallback::Value(value) = key.fallback {
                    let said = Config::parse("said.toml", &format!("{head}{} = {value}\n", key.name)).unwrap();
                    assert_eq!(said, silent, "{}.{}", section.name, key.name);
                    stated += 1;
                }
            }
        }
        assert!(stated >= 32, "{stated}");
    }
}
