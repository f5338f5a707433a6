//! What came of it, for people, for programs and for the page in `docs/`.

use std::fmt::Write as _; // writing into a String cannot fail
use std::path::Path;

use crate::trial::Verdict;
use crate::{Outcome, Plan};

/// Between these lines of the page stands the table.
const BEGIN: &str = "<!-- chaos: begin -->";
const END: &str = "<!-- chaos: end -->";

/// The table, in Markdown.
fn table(verdicts: &[Verdict]) -> String {
    let mut text = String::from(
        "| fault | done | accepted | finished | lost | twice | stale | calls | cut off | further attempts \
         | calls beyond the record | requests sent again | back after |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for verdict in verdicts {
        let f = &verdict.figures;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} s |",
            verdict.about,
            verdict.done,
            f.accepted,
            f.finished,
            f.lost,
            f.twice,
            f.stale,
            f.calls,
            f.calls_cut_off,
            f.further_attempts,
            f.calls_unexplained,
            verdict.requests_again,
            verdict.back_after_seconds,
        );
    }
    text
}

/// Prints a verdict.
pub fn print(verdict: &Verdict) {
    let good =
        if verdict.problems.is_empty() && verdict.too_late.is_none() { "ok" } else { "NOT OK" };
    println!("{:<20} {good}  ({:.0} s; {})", verdict.fault, verdict.took_seconds, verdict.done);
    println!("  {:?}", verdict.figures);
    println!(
        "  back after {:.1} s; {} requests sent again; invariants asked {} times",
        verdict.back_after_seconds, verdict.requests_again, verdict.invariants_asked
    );
    for problem in verdict.problems.iter().chain(&verdict.too_late) {
        println!("  PROBLEM: {problem}");
    }
}

/// Writes the verdicts as JSON.
///
/// # Errors
///
/// When the file cannot be written.
pub fn write_json(verdicts: &[Verdict], path: &Path) -> Outcome<()> {
    std::fs::write(path, serde_json::to_string_pretty(verdicts)? + "\n")?;
    println!("written to {}", path.display());
    Ok(())
}

/// Puts the table, and how it was made, into the page at `path`, in place of the one there.
///
/// # Errors
///
/// When the page has no place for it, or cannot be written.
pub fn write_table(verdicts: &[Verdict], plan: &Plan, path: &Path) -> Outcome<()> {
    let page = std::fs::read_to_string(path)?;
    let place = page.split_once(BEGIN).zip(page.split_once(END));
    let ((before, _), (_, after)) =
        place.ok_or_else(|| format!("{} has no {BEGIN} … {END}", path.display()))?;
    let made = format!(
        "`make chaos`: {} runs and events each, sent in over {} s, seed {}; version {}.",
        plan.runs,
        plan.load.as_secs(),
        plan.seed,
        env!("CARGO_PKG_VERSION")
    );
    let new = format!("{before}{BEGIN}\n\n{made}\n\n{}\n{END}{after}", table(verdicts));
    Ok(std::fs::write(path, new)?)
}
