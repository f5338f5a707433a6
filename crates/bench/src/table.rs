//! What was measured, for people and for programs.

use std::fs;

use serde_json::{Map, Value, json};

use crate::Outcome;

/// Figures in the order they were measured.
#[derive(Default)]
pub struct Table(Vec<(String, Value, &'static str, String)>);

impl Table {
    /// Adds a figure with its unit and, where there is one, its target; prints it at once.
    pub fn add(&mut self, name: &str, value: f64, unit: &'static str, target: &str) {
        println!("{name:<58} {value:>12.2} {unit:<6} {target}");
        self.0.push((name.to_owned(), json!(value), unit, target.to_owned()));
    }

    /// Writes all as `target/bench/<name>.json`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(self, name: &str) -> Outcome<()> {
        let figures: Map<String, Value> = self
            .0
            .into_iter()
            .map(|(name, value, unit, target)| {
                (name, json!({"value": value, "unit": unit, "target": target}))
            })
            .collect();
        fs::create_dir_all("target/bench")?;
        let path = format!("target/bench/{name}.json");
        fs::write(&path, serde_json::to_string_pretty(&figures)? + "\n")?;
        println!("written to {path}");
        Ok(())
    }
}

/// The value below which `share` of `sorted` lies; 0 when there is none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a list"
)]
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
    sorted.get(place).copied().unwrap_or(0.0)
}
