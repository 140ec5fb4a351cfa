//! `weir reload`.

use super::{order, print_message};
use crate::{
    api::protocol::Request,
    cli::GlobalArgs,
    exit::{Exit, Failure},
};

/// Has the daemon read its configuration again. A file with a fault changes nothing and ends with [`Exit::Configuration`].
pub fn run(global: &GlobalArgs) -> Result<Exit, Failure> {
    let message = order(global, &Request::Reload)?;
    print_message(global, &message)
}
