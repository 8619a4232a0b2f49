use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Highest tax: at 1 an idle page would cost infinitely much.
const MAX_TAX: f64 = 0.99;

/// The part of an idle page's worth that a VM forfeits, from 0 to 0.99 (Waldspurger 2002, section
/// 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(extend("minimum" = 0, "maximum" = MAX_TAX)))]
#[serde(try_from = "f64", into = "f64")]
pub struct TaxRate(f64);

// It is never NaN.
impl Eq for TaxRate {}

impl TaxRate {
    /// The rate.
    pub fn rate(self) -> f64 {
        self.0
    }
}

/// A number that is no tax.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tax {0}: must be a number from 0 to {MAX_TAX}")]
pub struct TaxError(String);

impl TryFrom<f64> for TaxRate {
    type Error = TaxError;

    fn try_from(rate: f64) -> Result<Self, TaxError> {
        if (0.0..=MAX_TAX).contains(&rate) { Ok(Self(rate)) } else { Err(TaxError(rate.to_string())) }
    }
}

impl FromStr for TaxRate {
    type Err = TaxError;

    fn from_str(text: &str) -> Result<Self, TaxError> {
        text.parse::<f64>().map_err(|_| TaxError(format!("{text:?}"))).and_then(Self::try_from)
    }
}

impl From<TaxRate> for f64 {
    fn from(tax: TaxRate) -> Self {
        tax.0
    }
}

impl fmt::Display for TaxRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leaves_an_idle_page_a_worth_is_a_tax() {
        for (text, rate) in [("0", 0.0), ("0.75", 0.75), (".99", 0.99), ("-0", 0.0)] {
            assert_eq!(text.parse::<TaxRate>().unwrap().rate(), rate, "{text}");
        }
        for text in ["1", "-0.1", "NaN", "inf", "1e400", "half", ""] {
            let error = text.parse::<TaxRate>().unwrap_err().to_string();
            assert!(error.starts_with("tax "), "{error}");
        }
        assert!(serde_json::from_str::<TaxRate>("1").unwrap_err().to_string().contains("tax 1:"));
    }
}
