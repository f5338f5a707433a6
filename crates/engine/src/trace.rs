//! Where a piece of work stands in a trace: W3C Trace Context, level 2 (<https://www.w3.org/TR/trace-context-2/>).
//!
//! The id of a run is the id of its trace: both are 128 bits, so nothing has to be stored or handed on,
//! and whoever knows a run knows its trace. The span that made it is derived from the id as well, so that
//! a worker can name the parent that another process has sent. Spans themselves are made and sent by
//! the services (`boot::traces`).

use std::fmt;
use std::str::FromStr;

use crate::id::RunId;

/// The name of the header.
pub const TRACEPARENT: &str = "traceparent";

/// The bits of a trace id that are random: its last seven bytes, also in a `UUIDv7`.
const RANDOM_BITS: u32 = 56;
const RANDOM_MASK: u128 = (1 << RANDOM_BITS) - 1;

/// A span's place: its trace and its own id, and whether it is recorded. As text, the value of the
/// header `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace; never zero.
    pub trace: u128,
    /// The span; never zero.
    pub span: u64,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl TraceParent {
    /// The first span of a run's trace: that of whoever made the run.
    #[must_use]
    pub fn of_run(run: RunId) -> Self {
        // The variant's bits of a UUID are in these eight bytes, so they are not zero.
        let (_, span) = run.0.as_u64_pair();
        Self { trace: run.0.as_u128(), span, sampled: true }
    }

    /// A new span in the same trace; its id is drawn from `rng`.
    #[must_use]
    pub fn child(self, rng: &mut impl rand::Rng) -> Self {
        Self { span: rng.next_u64().max(1), ..self }
    }

    /// The first span of a new trace.
    #[must_use]
    pub fn new(rng: &mut impl rand::Rng) -> Self {
        let trace = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64().max(1));
        Self { trace, span: 1, sampled: true }.child(rng)
    }
}

/// Whether a trace belongs to the part `ratio` (0 to 1) of all that is recorded.
///
/// Decided by the random end of its id, so every process decides alike and a larger part holds every
/// smaller one (OpenTelemetry, *Consistent Probability Sampling*). The older rule, by the last eight bytes, would take
/// all or none: the first bits of those are the same in every UUID.
#[must_use]
pub fn is_sampled(trace: u128, ratio: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "56 bits against a ratio that a person wrote")]
    let place = (trace & RANDOM_MASK) as f64 / (1_u64 << RANDOM_BITS) as f64;
    place >= 1.0 - ratio
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// Not the value of a `traceparent`; whoever gets one goes on as if there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct NoTraceParent;

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    /// Reads a header, also of a later version: what it adds stands behind what we know (§4.3).
    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        read(text).ok_or(NoTraceParent)
    }
}

fn read(text: &str) -> Option<TraceParent> {
    let mut parts = text.splitn(5, '-');
    let mut next = |digits| hex(parts.next()?, digits);
    let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
    let span = u64::try_from(span).ok()?;
    let has_more = parts.next().is_some();
    let is_right = version != 0xff && (version != 0 || !has_more) && trace != 0 && span != 0;
    is_right.then_some(TraceParent { trace, span, sampled: flags & 1 == 1 })
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_right =
        text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_right.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id;

    #[test]
    fn the_trace_of_a_run_is_its_id() {
        let run: RunId = "0198f3a1-7c2b-7def-8123-456789abcdef".parse().unwrap();

        assert_eq!(
            TraceParent::of_run(run).to_string(),
            "00-0198f3a17c2b7def8123456789abcdef-8123456789abcdef-01"
        );
    }

    #[test]
    fn a_header_is_read_as_the_standard_says() {
        let right = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let cases = [
            (right, true, "the example of the standard"),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", true, "not recorded"),
            (
                "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
                true,
                "a later version",
            ),
            (
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
                false,
                "this one ends there",
            ),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false, "no version"),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", false, "no trace"),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false, "no span"),
            ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false, "capital letters"),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b71692033-01", false, "too short"),
            ("", false, "nothing"),
        ];

        for (text, is_right, why) in cases {
            assert_eq!(text.parse::<TraceParent>().is_ok(), is_right, "{why}");
        }
        assert_eq!(right.parse::<TraceParent>().unwrap().to_string(), right);
    }

    #[test]
    fn as_many_runs_are_sampled_as_the_ratio_says() {
        let at = "2026-03-01T08:00:00Z".parse().unwrap();
        let runs: Vec<_> = (0..20_000).map(|_| RunId::new(at, &mut id::rng())).collect();
        let sampled = |ratio| runs.iter().filter(|run| is_sampled(run.0.as_u128(), ratio)).count();

        assert_eq!((sampled(0.0), sampled(1.0)), (0, runs.len()));
        // Twenty standard deviations.
        assert!((1_100..2_900).contains(&sampled(0.1)), "{}", sampled(0.1));
    }
}
