//! Sums of decimal numbers, for `INCRBYFLOAT`.
//!
//! Redis adds in the processor's longest form of numbers and tells 17 places of the result. Here numbers are added as they are
//! written, which comes to the same for all that people count, and what is too long or too small for that in floating point.

/// Places behind the point that are told.
const MAX_PLACES: u32 = 17;

/// A number with a point: the digits, and how many of them are behind it.
#[derive(Clone, Copy, Debug)]
struct Decimal {
    digits: i128,
    places: u32,
}

/// A finite number as Redis takes it.
pub(super) fn float(text: &[u8]) -> Option<f64> {
    let text = str::from_utf8(text).ok()?;
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The sum of two texts that are [`float`]s; `None` if it is none any more.
pub(super) fn sum(a: &[u8], b: &[u8]) -> Option<String> {
    let exact = Decimal::read(a).zip(Decimal::read(b)).and_then(|(a, b)| a.plus(b));
    match exact {
        Some(sum) => Some(sum.shown()),
        None => Some(float(a)? + float(b)?).filter(|sum| sum.is_finite()).map(|sum| sum.to_string()),
    }
}

impl Decimal {
    /// `None` if it has more digits than there is room for.
    fn read(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok()?;
        let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let places = i64::try_from(fraction.len()).ok()?.checked_sub(exponent.parse().ok()?)?;
        match u32::try_from(places) {
            Ok(places) => Some(Self { digits, places }),
            Err(_) => {
                let factor = 10_i128.checked_pow(u32::try_from(places.checked_neg()?).ok()?)?;
                Some(Self { digits: digits.checked_mul(factor)?, places: 0 })
            }
        }
    }

    fn plus(self, other: Self) -> Option<Self> {
        let places = self.places.max(other.places);
        let digits = self.digits_at(places)?.checked_add(other.digits_at(places)?)?;
        let sum = Self { digits, places };
        if places > MAX_PLACES { sum.rounded() } else { Some(sum) }
    }

    /// The digits if so many of them are behind the point, which is no fewer than there are.
    fn digits_at(self, places: u32) -> Option<i128> {
        self.digits.checked_mul(10_i128.checked_pow(places - self.places)?)
    }

    /// With no more places than are told.
    fn rounded(self) -> Option<Self> {
        let unit = 10_i128.checked_pow(self.places - MAX_PLACES)?;
        let half = self.digits.signum() * (unit / 2);
        Some(Self { digits: self.digits.checked_add(half)? / unit, places: MAX_PLACES })
    }

    /// Without an exponent, and without zeros that say nothing.
    fn shown(self) -> String {
        let places = usize::try_from(self.places).unwrap_or_default();
        let sign = if self.digits < 0 { "-" } else { "" };
        let digits = format!("{:0>width$}", self.digits.unsigned_abs(), width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        match fraction.trim_end_matches('0') {
            "" => format!("{sign}{whole}"),
            fraction => format!("{sign}{whole}.{fraction}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn added(a: &str, b: &str) -> Option<String> {
        sum(a.as_bytes(), b.as_bytes())
    }

    #[test]
    fn sums_are_those_of_the_numbers_as_they_are_written() {
        for (a, b, expected) in [
            ("1010.1", "-1110.1", "-100"),
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("-.5", "+.25", "-0.25"),
            ("3.", "-3", "0"),
            ("1e-17", "1e-18", "0.00000000000000001"),
            ("-1e-17", "-6e-18", "-0.00000000000000002"),
            ("0", "1e-300", "0.000"),
            ("1e300", "1", "1000"),
            ("123456789012345678901234567890123456789012", "0", "1234"),
        ] {
            let sum = added(a, b).unwrap();
            match expected {
                "0.000" | "1000" | "1234" => assert!(sum.starts_with(expected), "{a} + {b} = {sum}"),
                _ => assert_eq!(sum, expected, "{a} + {b}"),
            }
        }
        assert_eq!(added("1.7e308", "1.7e308"), None);
    }

    #[test]
    fn only_finite_numbers_are_taken() {
        assert_eq!(float(b"1.5e2"), Some(150.0));
        for text in ["", "x", "inf", "nan", "1e400", " 1", "0x1"] {
            assert_eq!(float(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn sums_are_close_to_those_of_floating_point(a in -1e12..1e12f64, b in -1e12..1e12f64) {
            let sum: f64 = added(&a.to_string(), &b.to_string()).unwrap().parse().unwrap();
            prop_assert!((sum - (a + b)).abs() <= 1e-3);
        }

        #[test]
        fn whatever_is_a_number_is_added(a in "[+-]?[0-9]{0,40}(\\.[0-9]{0,40})?(e[+-]?[0-9]{1,4})?") {
            if float(a.as_bytes()).is_some() {
                prop_assert!(added(&a, "0.5").is_some());
            }
        }
    }
}
