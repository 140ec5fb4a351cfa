//! `[discovery]`: which groups become services without being named.
use serde::Serialize;
use toml::{Spanned, de::DeValue};

use super::{
    reader::{Report, Section},
    schema::{Fallback, Form, Key, Schema},
};

/// `[discovery]`, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Discovery {
    /// Whether every TCP `SO_REUSEPORT` group reachable through the interfaces becomes a service, and while there is a defence every other
    /// TCP listener too, which is not balanced.
    pub tcp: bool,
    /// The same for UDP.
    pub udp: bool,
}

const TCP: Key = Key {
    name: "tcp",
    form: Form::Boolean,
    fallback: Fallback::Words("`true` when the file names no service, `false` when it names one"),
    example: "true",
    help: "Whether every TCP SO_REUSEPORT group that is reachable through the interfaces becomes a service by itself. A group that another \
           program steers is left alone and reported. While `syn_defence` is not `off`, such groups and TCP listeners without SO_REUSEPORT \
           are services too, which are counted and defended but not balanced.",
};
const UDP: Key =
    Key { name: "udp", form: Form::Boolean, fallback: Fallback::Value("false"), example: "true", help: "The same for UDP groups." };

pub(super) const SCHEMA: Schema = Schema {
    name: "discovery",
    repeated: false,
    help: "Which groups become services without being named. `--discover tcp` and `--discover udp` on the command line switch one on.",
    keys: &[&TCP, &UDP],
};

/// What holds with no file.
impl Default for Discovery {
    fn default() -> Self {
        Self { tcp: true, udp: false }
    }
}

impl Discovery {
    /// `names_services`: whether the file names at least one service.
    pub(super) fn read(report: &mut Report<'_>, value: Option<&Spanned<DeValue<'_>>>, names_services: bool) -> Self {
        let mut section = Section::open(report, &SCHEMA, "discovery".to_owned(), value);
        Self { tcp: section.boolean(&TCP).unwrap_or(!names_services), udp: section.boolean(&UDP).unwrap_or(false) }
    }
}
