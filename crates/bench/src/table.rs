//! What was measured, for people and for programs.

use std::fs;

use serde_json::{Map, Value, json};

use crate::Outcome;

/// Figures in the order they were measured.
#[derive(Default)]
pub struct Table(Vec<(String, Value)>);

impl Table {
    /// Adds a figure with its unit and, where there is one, its target; prints it at once.
    pub fn add(&mut self, name: &str, value: f64, unit: &'static str, target: &str) {
        self.push(name, json!({"value": value, "unit": unit, "target": target}));
        print(name, value, unit, target);
    }

    fn push(&mut self, name: &str, figure: Value) {
        self.0.push((name.to_owned(), figure));
    }

    /// Writes all as `target/bench/<name>.json`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(self, name: &str) -> Outcome<()> {
        let figures: Map<String, Value> = self.0.into_iter().collect();
        fs::create_dir_all("target/bench")?;
        let path = format!("target/bench/{name}.json");
        fs::write(&path, serde_json::to_string_pretty(&figures)? + "\n")?;
        println!("written to {path}");
        Ok(())
    }
}

fn print(name: &str, value: f64, unit: &str, target: &str) {
    let digits = if value.abs() < 10.0 { 3 } else { 1 };
    println!("{name:<66} {value:>12.digits$} {unit:<6} {target}");
}

/// Figures of several rounds: what counts is their median.
#[derive(Default)]
pub struct Rounds(Vec<Figure>);

struct Figure {
    name: String,
    unit: &'static str,
    target: String,
    values: Vec<f64>,
}

impl Rounds {
    /// Adds what a round measured; says it at once on standard error.
    pub fn add(&mut self, name: &str, value: f64, unit: &'static str, target: &str) {
        eprintln!("  {name}: {value:.3} {unit}");
        if let Some(figure) = self.0.iter_mut().find(|figure| figure.name == name) {
            figure.values.push(value);
            return;
        }
        let (name, target) = (name.to_owned(), target.to_owned());
        self.0.push(Figure { name, unit, target, values: vec![value] });
    }

    /// The medians, printed; the JSON has each round beside them.
    #[must_use]
    pub fn into_table(self) -> Table {
        let mut table = Table::default();
        for Figure { name, unit, target, values } in self.0 {
            let value = median(&values);
            print(&name, value, unit, &target);
            table.push(
                &name,
                json!({"value": value, "unit": unit, "target": target, "rounds": values}),
            );
        }
        table
    }
}

/// The value in the middle; of an even number, the mean of the two there. 0 when there is none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle_whatever_the_order() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }
}
