//! What was checked, and what came of it.

use std::collections::BTreeMap;
use std::fmt;

/// One comparison.
#[derive(Clone, Debug)]
pub struct Case {
    /// The method of the backend that it is about.
    pub operation: &'static str,
    /// The type and the shape.
    pub what: String,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The results are near enough.
    Passed {
        /// How far they are from what is expected.
        error: f64,
    },
    /// They are not.
    Failed {
        /// Why.
        reason: String,
    },
    /// The backend doesn't do this, and says so.
    Refused,
}

/// All comparisons, in their order.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The cases.
    pub cases: Vec<Case>,
}

/// How many cases of an operation came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count {
    n_passed: usize,
    n_failed: usize,
    n_refused: usize,
    largest_error: f64,
}

impl Report {
    /// Cases that passed.
    pub fn n_passed(&self) -> usize {
        self.cases.iter().filter(|case| matches!(case.verdict, Verdict::Passed { .. })).count()
    }

    /// Those of an operation.
    pub fn of<'a>(&'a self, operation: &str) -> impl Iterator<Item = &'a Case> {
        self.cases.iter().filter(move |case| case.operation == operation)
    }

    /// Cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(|case| matches!(case.verdict, Verdict::Failed { .. }))
    }

    /// Types and shapes that the backend refuses.
    pub fn refused(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(|case| case.verdict == Verdict::Refused)
    }

    /// # Panics
    /// If a case failed, with all that did; if none ran.
    pub fn assert_passed(&self) {
        let failures: Vec<String> = self.failures().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
        assert!(self.n_passed() > 0, "no case ran");
    }

    fn counts(&self) -> BTreeMap<&'static str, Count> {
        let mut counts = BTreeMap::<_, Count>::new();
        for case in &self.cases {
            let count = counts.entry(case.operation).or_default();
            match case.verdict {
                Verdict::Passed { error } => {
                    count.n_passed += 1;
                    count.largest_error = count.largest_error.max(error);
                }
                Verdict::Failed { .. } => count.n_failed += 1,
                Verdict::Refused => count.n_refused += 1,
            }
        }
        counts
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.what)?;
        match &self.verdict {
            Verdict::Passed { error } => write!(f, ": passed, error {error:.1e}"),
            Verdict::Failed { reason } => write!(f, ": {reason}"),
            Verdict::Refused => write!(f, ": refused"),
        }
    }
}

/// A line for each operation.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<16}{:>8}{:>8}{:>9}{:>15}",
            "operation", "passed", "failed", "refused", "largest error"
        )?;
        for (operation, count) in self.counts() {
            let Count { n_passed, n_failed, n_refused, largest_error } = count;
            writeln!(f, "{operation:<16}{n_passed:>8}{n_failed:>8}{n_refused:>9}{largest_error:>15.1e}")?;
        }
        let (n_failed, n_refused) = (self.failures().count(), self.refused().count());
        write!(f, "{} cases passed, {n_failed} failed, {n_refused} refused", self.n_passed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(operation: &'static str, verdict: Verdict) -> Case {
        Case { operation, what: "a shape".to_owned(), verdict }
    }

    #[test]
    #[should_panic(expected = "1 cases failed:\nnorm: a shape: other values")]
    fn failures_are_named() {
        let failed = Verdict::Failed { reason: "other values".to_owned() };
        let cases = vec![case("add", Verdict::Passed { error: 0.0 }), case("norm", failed)];
        Report { cases }.assert_passed();
    }

    #[test]
    #[should_panic(expected = "no case ran")]
    fn nothing_is_no_success() {
        Report { cases: vec![case("matrix", Verdict::Refused)] }.assert_passed();
    }
}
