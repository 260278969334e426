//! The settings of organizations.

/// The organizations of a simulator.
#[derive(Clone, Debug)]
pub struct OrganizationOptions {
    /// Whether organizations are switched on in the instance. While they are off, requests about
    /// them are refused.
    pub enabled: bool,
    /// The number of organizations at the start.
    pub number: usize,
    /// The members of each. No user is in an organization twice, so there are at most as many as
    /// users.
    pub members: PerOrganization,
    /// The invitations of each. Two in five are pending.
    pub invitations: PerOrganization,
    /// Random changes of organizations, memberships and invitations per second. `None` if there are
    /// none.
    pub churn: Option<f64>,
}

impl OrganizationOptions {
    /// Switches organizations on, with this number at the start.
    pub fn number(number: usize) -> Self {
        Self {
            enabled: true,
            number,
            ..Self::default()
        }
    }
}

impl Default for OrganizationOptions {
    /// Organizations are off.
    fn default() -> Self {
        Self {
            enabled: false,
            number: 0,
            members: PerOrganization::Skewed { least: 1, most: 20 },
            invitations: PerOrganization::Skewed { least: 0, most: 5 },
            churn: None,
        }
    }
}

/// How many objects each organization has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PerOrganization {
    /// The n-th organization has the n-th of these numbers. After the last, the first is next.
    Sizes(Vec<usize>),
    /// Random numbers in a range. Small numbers are more frequent: there are as many organizations
    /// with 1 to 9 as with 10 to 99.
    Skewed {
        /// The least, which can occur.
        least: usize,
        /// The most, which can occur.
        most: usize,
    },
}

impl PerOrganization {
    /// The number of the n-th organization. `chance` is random, from 0 to 1.
    pub(super) fn of(&self, n: usize, chance: f64) -> usize {
        match self {
            Self::Sizes(sizes) => sizes.get(n % sizes.len().max(1)).copied().unwrap_or(0),
            Self::Skewed { least, most } => {
                let span = most.saturating_sub(*least);
                least + (((span + 2) as f64).powf(chance) as usize - 1).min(span)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_start_again_and_skewed_numbers_stay_in_their_range() {
        let sizes = PerOrganization::Sizes(vec![0, 501]);
        assert_eq!([0, 1, 2, 3].map(|n| sizes.of(n, 0.5)), [0, 501, 0, 501]);
        assert_eq!(PerOrganization::Sizes(Vec::new()).of(7, 0.5), 0);
        let skewed = PerOrganization::Skewed { least: 3, most: 100 };
        assert_eq!([0.0, 0.5, 0.9999].map(|chance| skewed.of(0, chance)), [3, 11, 100]);
        assert_eq!(PerOrganization::Skewed { least: 2, most: 2 }.of(0, 0.9999), 2);
    }
}
