//! `weir explain`: which worker one flow goes to, and why.

use super::{offline, print, print_json};
use crate::{
    cli::{ExplainArgs, GlobalArgs},
    daemon,
    exit::{Exit, Failure, OrFail as _, fail},
    explain::{ExplainError, Explanation, explain},
};

/// Explains on the live maps; it needs no daemon.
pub fn run(global: &GlobalArgs, arguments: &ExplainArgs) -> Result<Exit, Failure> {
    arguments.check()?;
    let ExplainArgs { protocol, source, destination, without } = arguments;
    let without =
        without.as_ref().map(|text| text.parse()).transpose().or_fail(Exit::Usage, "name a backend by its number in `weir status`")?;
    let (pins, maps, plan) = offline::open(global)?;
    let explanation = explain(&plan, &maps, &pins.linked_interfaces(), *protocol, *source, *destination, without);
    let explanation = explanation.map_err(|error| match error {
        ExplainError::Dataplane(error) => daemon::failure(error),
        error @ ExplainError::NoBackend { .. } => fail(Exit::NotFound, error.to_string(), "`weir status` lists the backends"),
    })?;
    if global.json { print_json(&explanation) } else { print(&in_words(&explanation)) }
}

fn in_words(explanation: &Explanation) -> String {
    let Explanation { service, backend, steps, without } = explanation;
    let mut text = String::new();
    for (number, step) in steps.iter().enumerate() {
        text += &format!("{}. {step}\n", number + 1);
    }
    text += &match (service, backend) {
        (Some(service), Some(backend)) => format!("=> service {service}, backend {backend}\n"),
        (Some(service), None) => format!("=> service {service}, by the kernel's own hash\n"),
        (None, _) => "=> not Weir's\n".to_owned(),
    };
    if let Some(without) = without {
        let share = without.moved_share * 100.0;
        let backend = without.backend.map_or_else(|| "the kernel's own choice".to_owned(), |backend| format!("backend {backend}"));
        let moves = if without.moves { format!("this flow would go to {backend}") } else { "this flow would stay".to_owned() };
        text += &format!("without backend {}: {moves}; {share:.1} % of all flows would move\n", without.left_out);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Without;

    #[test]
    fn the_last_line_says_who() {
        let mut explanation = Explanation { service: None, backend: None, steps: vec!["first".to_owned()], without: None };
        assert_eq!(in_words(&explanation), "1. first\n=> not Weir's\n");
        explanation.service = Some("web".to_owned());
        explanation.backend = Some(3);
        explanation.without = Some(Without { left_out: 3, backend: Some(1), moves: true, moved_share: 0.251 });
        assert_eq!(
            in_words(&explanation),
            "1. first\n=> service web, backend 3\nwithout backend 3: this flow would go to backend 1; 25.1 % of all flows would move\n"
        );
    }
}
