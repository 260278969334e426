//! The known name that a misspelt one probably stands for.

/// Returns the candidate that differs least from a name; of equal ones the first in order.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let distance = |candidate: &str| {
        let ignoring_case = strsim::damerau_levenshtein(&candidate.to_lowercase(), &name.to_lowercase());
        (ignoring_case, strsim::damerau_levenshtein(candidate, name))
    };
    let candidates = candidates.into_iter();
    candidates.min_by_key(|candidate| (distance(candidate), *candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_case_is_nearer_than_another_letter() {
        let check = |name, candidates: &[&'static str], expected| {
            assert_eq!(nearest(name, candidates.iter().copied()), expected, "{name}");
        };
        check("user", &["USER", "usr", "users"], Some("USER"));
        check("clerk_id", &["email", "clerkId", "id"], Some("clerkId"));
        check("emial", &["name", "email"], Some("email"));
        check("email", &[], None);
    }
}
