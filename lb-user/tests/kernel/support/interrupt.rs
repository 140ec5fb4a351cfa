//! Ctrl-C, for what runs long and has to tidy up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::{self, unix::SignalKind};

/// From now on SIGINT and SIGTERM only set this. (A mask would do it too, but the programs that are started would inherit it.)
pub fn watch() -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&ended);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for the signals");
    let streams = {
        let _inside = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal::unix::signal(kind).expect("take a signal"))
    };
    std::thread::spawn(move || {
        let [mut interrupt, mut terminate] = streams;
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        set.store(true, Ordering::Relaxed);
    });
    ended
}
