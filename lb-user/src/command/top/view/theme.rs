//! Colours, or what says the same without them.

use ratatui::style::{Color, Modifier, Style};

/// The styles of all parts. Without colours the strong and the weak are told apart by weight alone.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Theme {
    /// Whether colours may be used.
    pub colour: bool,
}

impl Theme {
    fn ink(self, colour: Color, without: Modifier) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new().add_modifier(without) }
    }

    pub(super) const fn plain() -> Style {
        Style::new()
    }

    pub(super) const fn strong() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim(self) -> Style {
        self.ink(Color::DarkGray, Modifier::DIM)
    }

    pub(super) fn good(self) -> Style {
        self.ink(Color::Green, Modifier::empty())
    }

    pub(super) fn warning(self) -> Style {
        self.ink(Color::Yellow, Modifier::empty())
    }

    pub(super) fn bad(self) -> Style {
        self.ink(Color::Red, Modifier::BOLD)
    }

    /// What nobody may overlook.
    pub(super) fn alarm(self) -> Style {
        self.bad().add_modifier(Modifier::BOLD | Modifier::REVERSED)
    }

    /// The row that the keys act on; the other table's chosen row is only bold.
    pub(super) const fn chosen(in_focus: bool) -> Style {
        Style::new().add_modifier(if in_focus { Modifier::REVERSED } else { Modifier::BOLD })
    }

    /// A bar that is so full, 0 to 1 and more.
    pub(super) fn level(self, fill: f64) -> Style {
        match fill {
            _ if fill >= 1.0 => self.bad(),
            _ if fill >= 0.7 => self.warning(),
            _ => self.good(),
        }
    }
}
