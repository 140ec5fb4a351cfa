//! A program that takes the terminal as `weir top` does, and panics: in the thread that draws, or in another.

use std::process::ExitCode;

use lb_user::command::top::screen::Screen;

/// The role's name on the command line.
pub const NAME: &str = "screen";
/// What it panics with.
pub const WORDS: &str = "a fault in the view";

/// Plays the role: `thread` is `main` or `other`.
pub fn play(thread: &str) -> ExitCode {
    let mut screen = Screen::open().expect("the terminal");
    screen.draw(|frame| frame.render_widget("here is the view", frame.area())).expect("draw");
    if thread == "other" {
        // The one that draws would go on for ever.
        let _ = std::thread::spawn(|| panic!("{WORDS}")).join();
        loop {
            std::thread::park();
        }
    }
    panic!("{WORDS}")
}
