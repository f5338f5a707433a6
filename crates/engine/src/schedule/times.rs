//! The times of day of a rule: every listed hour with every listed minute and second.
//!
//! Kept as three lists, not multiplied out: a rule may name all 86,400 seconds of the day.

use chrono::{NaiveTime, Timelike};

/// Each list is sorted, without doubles and not empty; hours < 24, minutes and seconds < 60.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) hours: Vec<u32>,
    pub(super) minutes: Vec<u32>,
    pub(super) seconds: Vec<u32>,
}

impl Times {
    /// How many times a day has.
    pub(super) fn len(&self) -> usize {
        self.hours.len() * self.minutes.len() * self.seconds.len()
    }

    /// The `index`th of them, from the earliest on; `index` below [`Times::len`].
    pub(super) fn nth(&self, index: usize) -> NaiveTime {
        let (rest, second) = (index / self.seconds.len(), index % self.seconds.len());
        let (hour, minute) = (rest / self.minutes.len(), rest % self.minutes.len());
        NaiveTime::from_hms_opt(self.hours[hour], self.minutes[minute], self.seconds[second])
            .expect("the lists hold hours below 24, minutes and seconds below 60")
    }

    /// The index of the first time not before `time`; [`Times::len`] when all are.
    pub(super) fn index_at_or_after(&self, time: NaiveTime) -> usize {
        let (minutes, seconds) = (self.minutes.len(), self.seconds.len());
        let hour = self.hours.partition_point(|&hour| hour < time.hour());
        if self.hours.get(hour) != Some(&time.hour()) {
            return hour * minutes * seconds;
        }
        let minute = self.minutes.partition_point(|&minute| minute < time.minute());
        if self.minutes.get(minute) != Some(&time.minute()) {
            return (hour * minutes + minute) * seconds;
        }
        let second = self.seconds.partition_point(|&second| second < time.second());
        (hour * minutes + minute) * seconds + second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_that_of_the_first_time_not_before() {
        let times = Times { hours: vec![8, 17], minutes: vec![0, 30], seconds: vec![5, 10] };
        let all: Vec<NaiveTime> = (0..times.len()).map(|index| times.nth(index)).collect();

        assert!(all.is_sorted());
        for second in 0..86_400 {
            let time = NaiveTime::from_num_seconds_from_midnight_opt(second, 0).unwrap();
            let wanted = all.partition_point(|&listed| listed < time);
            assert_eq!(times.index_at_or_after(time), wanted, "{time}");
        }
    }
}
