//! Whether a long queue is a slow one.

use super::Ground;
use super::drain::drain;
use super::work::Work;
use crate::Outcome;
use crate::table::Rounds;

/// The first so many runs are timed.
const FIRST: u32 = 20_000;

/// One round: as many runs as are timed, then very many.
pub async fn measure(ground: &Ground<'_>, figures: &mut Rounds) -> Outcome<()> {
    let mut rates = Vec::new();
    for waiting in [FIRST, ground.scale.backlog.max(FIRST)] {
        let work = Work::fresh(ground, "backlog", 1).await?;
        let reached = drain(ground, &work, 1, waiting, FIRST).await?;
        figures.add(
            &format!("{waiting} runs waiting: rate of the first {FIRST}"),
            reached.per_second,
            "1/s",
            "",
        );
        rates.push(reached.per_second);
    }
    let name = format!("{} runs waiting: ratio to {FIRST}", ground.scale.backlog);
    figures.add(&name, rates[1] / rates[0], "", ">= 0.9");
    Ok(())
}
