//! The clocks of two workers are wrong: one is an hour ahead, one an hour behind, both from one
//! process to the next. libfaketime changes what `clock_gettime` tells those processes.

use std::path::PathBuf;

use crate::world::World;
use crate::{Outcome, Plan};

/// libfaketime for programs with threads, where it is installed.
pub(super) fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .chain([PathBuf::from("/usr/lib/faketime/libfaketimeMT.so.1")])
        .find(|library| library.is_file())
}

pub(super) async fn inject(world: &mut World, plan: &Plan) -> Outcome<String> {
    let library = library().ok_or("libfaketime is not installed")?;
    for (worker, offset) in world.workers().iter_mut().zip(["+1h", "-1h"]) {
        let extra = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME", offset.to_owned()),
            // Only the clock on the wall; how long something takes is measured rightly.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        let extra = extra.map(|(name, value)| (name.to_owned(), value));
        worker.restart_with(extra.to_vec()).await?;
    }
    let took = plan.load.mul_f64(0.7);
    tokio::time::sleep(took).await;
    for worker in world.workers().iter_mut().take(2) {
        worker.restart_with(Vec::new()).await?;
    }
    world.note_made_good();
    Ok(format!("for {} s", took.as_secs()))
}
