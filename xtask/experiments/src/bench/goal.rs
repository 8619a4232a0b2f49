//! Figures with a bound that they should keep.

use std::fmt;

use serde::Serialize;

/// A figure with a bound that it should keep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Goal {
    goal: String,
    measured: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    most: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    least: Option<f64>,
    pub(crate) met: bool,
}

impl Goal {
    /// `measured` should be no more than `most`.
    pub(crate) fn at_most(goal: &str, measured: f64, most: f64) -> Self {
        Self { goal: goal.to_owned(), measured, most: Some(most), least: None, met: measured <= most }
    }

    /// `measured` should be no less than `least`.
    pub(crate) fn at_least(goal: &str, measured: f64, least: f64) -> Self {
        Self { goal: goal.to_owned(), measured, most: None, least: Some(least), met: measured >= least }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.met { "met" } else { "MISSED" };
        write!(f, "{verdict}: {}: {:.2}", self.goal, self.measured)?;
        self.most.iter().try_for_each(|most| write!(f, ", at most {most}"))?;
        self.least.iter().try_for_each(|least| write!(f, ", at least {least}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_up_to_its_bound_and_says_so() {
        assert!(Goal::at_most("a", 1.0, 1.0).met && !Goal::at_most("a", 1.1, 1.0).met);
        assert!(Goal::at_least("a", 1.0, 1.0).met && !Goal::at_least("a", 0.9, 1.0).met);
        // A ratio with nothing to divide by meets nothing.
        assert!(!Goal::at_most("a", f64::NAN, 1.0).met && !Goal::at_least("a", f64::NAN, 1.0).met);
        assert_eq!(Goal::at_most("faults", 1.234, 1.3).to_string(), "met: faults: 1.23, at most 1.3");
        assert_eq!(Goal::at_least("rate", 40.0, 50.0).to_string(), "MISSED: rate: 40.00, at least 50");
    }
}
