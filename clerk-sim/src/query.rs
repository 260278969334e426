//! The parameters of `GET /v1/users` and `GET /v1/users/count`.
//!
//! Names and meanings are documented. Guessed: what is a 422 and what is not where the documentation does not say, that the time
//! bounds are exclusive, and that parameters nobody knows are ignored (observed for `user_id[0]`).

use crate::errors::Failure;
use crate::facts::{Facts, Kind, normal};
use crate::faults::{Quirks, Shuffle};

/// At most so many values of one filter (documented).
const VALUES: usize = 100;
/// The page length when none is asked for (documented), and when more than 500 is (observed).
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: usize = 500;

/// A property to order by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    CreatedAt,
    UpdatedAt,
    EmailAddress,
    Web3Wallet,
    FirstName,
    LastName,
    PhoneNumber,
    Username,
    LastActiveAt,
    LastSignInAt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) by: Property,
    pub(crate) descending: bool,
}

/// The default order (documented).
const NEWEST_FIRST: Order = Order {
    by: Property::CreatedAt,
    descending: true,
};

pub(crate) struct Query {
    pub(crate) filter: Filter,
    pub(crate) order: Order,
    pub(crate) limit: usize,
    pub(crate) offset: usize,
    pub(crate) starting_after: Option<String>,
    /// The order was asked for with a literal `+`.
    has_plus: bool,
    /// What is shuffled, and the seed for it.
    pub(crate) shuffle: Option<(Shuffle, u64)>,
}

/// Ids to include and to exclude.
#[derive(Default)]
pub(crate) struct Ids {
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
}

impl Ids {
    fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }

    fn allows(&self, ids: &[String]) -> bool {
        (self.include.is_empty() || ids.iter().any(|id| self.include.contains(id)))
            && !ids.iter().any(|id| self.exclude.contains(id))
    }
}

/// Exclusive bounds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Bounds {
    pub(crate) after: Option<i64>,
    pub(crate) before: Option<i64>,
}

impl Bounds {
    pub(crate) fn hold(self, time: i64) -> bool {
        self.after.is_none_or(|after| time > after) && self.before.is_none_or(|before| time < before)
    }

    /// Who never was active was not active in any period.
    fn hold_for(self, time: Option<i64>) -> bool {
        match time {
            Some(time) => self.hold(time),
            None => self.after.is_none() && self.before.is_none(),
        }
    }
}

/// Which users are meant.
#[derive(Default)]
pub(crate) struct Filter {
    pub(crate) created_at: Bounds,
    pub(crate) user_id: Ids,
    pub(crate) facts: FactsFilter,
}

impl Query {
    /// Leaves out what a server with these quirks ignores.
    pub(crate) fn forget(&mut self, quirks: &Quirks) {
        self.filter.forget(quirks);
        if quirks.ignore_offset {
            self.offset = 0;
        }
        if quirks.unknown_plus && self.has_plus {
            self.order.by = Property::UpdatedAt;
        }
        if quirks.ignore_order_by {
            self.order = NEWEST_FIRST;
        }
    }
}

impl Filter {
    /// Leaves out what a server with these quirks ignores.
    pub(crate) fn forget(&mut self, quirks: &Quirks) {
        if quirks.ignore_created_at {
            self.created_at = Bounds::default();
        }
        if quirks.ignore_user_id {
            self.user_id = Ids::default();
        }
    }
}

/// The conditions for which a document must be read.
#[derive(Default)]
pub(crate) struct FactsFilter {
    email_address: Vec<String>,
    phone_number: Vec<String>,
    web3_wallet: Vec<String>,
    username: Vec<String>,
    external_id: Ids,
    organization_id: Ids,
    account: Vec<String>,
    query: Option<String>,
    email_address_query: Option<String>,
    phone_number_query: Option<String>,
    username_query: Option<String>,
    name_query: Option<String>,
    banned: Option<bool>,
    last_active_at: Bounds,
    last_sign_in_at: Bounds,
}

impl FactsFilter {
    pub(crate) fn is_empty(&self) -> bool {
        let bounds = [self.last_active_at, self.last_sign_in_at];
        self.exact().next().is_none()
            && self.external_id.is_empty()
            && self.organization_id.is_empty()
            && self.substrings().next().is_none()
            && self.banned.is_none()
            && bounds
                .iter()
                .all(|bounds| bounds.after.is_none() && bounds.before.is_none())
    }

    fn substrings(&self) -> impl Iterator<Item = &String> {
        [
            &self.query,
            &self.email_address_query,
            &self.phone_number_query,
            &self.username_query,
            &self.name_query,
        ]
        .into_iter()
        .flatten()
    }

    /// Conditions that an index can answer: whoever is meant has one of the values of each kind.
    pub(crate) fn exact(&self) -> impl Iterator<Item = (Kind, &[String])> {
        [
            (Kind::Email, &self.email_address),
            (Kind::Phone, &self.phone_number),
            (Kind::Wallet, &self.web3_wallet),
            (Kind::Username, &self.username),
            (Kind::ExternalId, &self.external_id.include),
            (Kind::Account, &self.account),
        ]
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(kind, values)| (kind, values.as_slice()))
    }

    pub(crate) fn matches(&self, id: &str, bytes: &[u8]) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some(facts) = Facts::read(bytes) else { return false };
        if self.exact().next().is_some() || !self.external_id.is_empty() {
            let has = facts.identifiers();
            let has_one = |(kind, values): (Kind, &[String])| {
                values.iter().any(|value| has.contains(&(kind, normal(kind, value))))
            };
            if !self.exact().all(has_one) || has_one((Kind::ExternalId, &self.external_id.exclude)) {
                return false;
            }
        }
        if !self.organization_id.is_empty() && !self.organization_id.allows(&facts.organizations()) {
            return false;
        }
        if self.banned.is_some_and(|banned| banned != facts.banned()) {
            return false;
        }
        self.last_active_at.hold_for(facts.last_active_at())
            && self.last_sign_in_at.hold_for(facts.last_sign_in_at())
            && self.matches_text(id, &facts)
    }

    fn matches_text(&self, id: &str, facts: &Facts<'_>) -> bool {
        let names = || {
            let (first, last) = (facts.first_name(), facts.last_name());
            let full = [first.clone(), last.clone()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" ");
            [first, last, Some(full)].into_iter().flatten().collect::<Vec<_>>()
        };
        let contained = |needle: &Option<String>, texts: &dyn Fn() -> Vec<String>| match needle {
            Some(needle) => texts().iter().any(|text| text.to_lowercase().contains(needle)),
            None => true,
        };
        let everything = || {
            let mut all = facts.emails();
            all.extend(facts.phones());
            all.extend(facts.wallets());
            all.extend(facts.username());
            all.push(id.to_owned());
            all.extend(names());
            all
        };
        contained(&self.email_address_query, &|| facts.emails())
            && contained(&self.phone_number_query, &|| facts.phones())
            && contained(&self.username_query, &|| facts.username().into_iter().collect())
            && contained(&self.name_query, &names)
            && contained(&self.query, &everything)
    }
}

/// Reads the parameters of a list.
pub(crate) fn list(query: &str) -> Result<Query, Failure> {
    let pairs = Pairs::read(query);
    let order = match pairs.first("order_by") {
        Some(text) => order(text)?,
        None => NEWEST_FIRST,
    };
    let limit = match pairs.integer("limit")? {
        None => DEFAULT_LIMIT,
        Some(limit) if limit < 1 => return Err(Failure::invalid("limit", "limit must be at least 1.")),
        Some(limit) => usize::try_from(limit)
            .ok()
            .filter(|limit| *limit <= MAX_LIMIT)
            .unwrap_or(DEFAULT_LIMIT),
    };
    let offset = pairs.integer("offset")?.unwrap_or(0);
    let offset = usize::try_from(offset)
        .map_err(|_| Failure::invalid("offset", "offset must be greater than or equal to 0."))?;
    let starting_after = pairs.first("starting_after").map(str::to_owned);
    if starting_after.is_some() {
        if order.by != Property::CreatedAt {
            return Err(Failure::invalid(
                "starting_after",
                "starting_after requires ordering by created_at.",
            ));
        }
        if offset > 0 {
            return Err(Failure::invalid(
                "starting_after",
                "starting_after cannot be combined with an offset.",
            ));
        }
    }
    Ok(Query {
        filter: filter(&pairs)?,
        order,
        limit,
        offset,
        starting_after,
        has_plus: pairs.first("order_by").is_some_and(|text| text.starts_with('+')),
        shuffle: None,
    })
}

/// Reads the parameters of a count.
pub(crate) fn count(query: &str) -> Result<Filter, Failure> {
    filter(&Pairs::read(query))
}

fn filter(pairs: &Pairs) -> Result<Filter, Failure> {
    let provider = pairs.first("provider");
    let provider_user_id = pairs.all("provider_user_id")?;
    let account = match provider {
        Some(_) if provider_user_id.is_empty() => {
            return Err(Failure::missing(
                "provider_user_id",
                "provider must be used with provider_user_id.",
            ));
        }
        Some(provider) => provider_user_id.iter().map(|id| format!("{provider} {id}")).collect(),
        None if provider_user_id.is_empty() => Vec::new(),
        None => {
            return Err(Failure::missing(
                "provider",
                "provider_user_id must be used with provider.",
            ));
        }
    };
    let banned = match pairs.first("banned") {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(Failure::invalid("banned", "banned must be true or false.")),
    };
    let lower = |name: &str| pairs.first(name).map(str::to_lowercase);
    let mut last_active_at = pairs.bounds("last_active_at")?;
    // The deprecated `since` includes its moment ("since the given date"); `after` does not.
    if let Some(since) = pairs.integer("last_active_at_since")? {
        last_active_at.after = last_active_at.after.max(Some(since.saturating_sub(1)));
    }
    Ok(Filter {
        created_at: pairs.bounds("created_at")?,
        user_id: pairs.ids("user_id")?,
        facts: FactsFilter {
            email_address: pairs.all("email_address")?,
            phone_number: pairs.all("phone_number")?,
            web3_wallet: pairs.all("web3_wallet")?,
            username: pairs.all("username")?,
            external_id: pairs.ids("external_id")?,
            organization_id: pairs.ids("organization_id")?,
            account,
            query: lower("query"),
            email_address_query: lower("email_address_query"),
            phone_number_query: lower("phone_number_query"),
            username_query: lower("username_query"),
            name_query: lower("name_query"),
            banned,
            last_active_at,
            last_sign_in_at: pairs.bounds("last_sign_in_at")?,
        },
    })
}

fn order(text: &str) -> Result<Order, Failure> {
    let (descending, name) = match text.strip_prefix('-') {
        Some(name) => (true, name),
        // A literal `+` in a URL is a space by the time it is read here, and then it is no order that exists.
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let by = match name {
        "created_at" => Property::CreatedAt,
        "updated_at" => Property::UpdatedAt,
        "email_address" => Property::EmailAddress,
        "web3wallet" => Property::Web3Wallet,
        "first_name" => Property::FirstName,
        "last_name" => Property::LastName,
        "phone_number" => Property::PhoneNumber,
        "username" => Property::Username,
        "last_active_at" => Property::LastActiveAt,
        "last_sign_in_at" => Property::LastSignInAt,
        _ => {
            return Err(Failure::invalid(
                "order_by",
                format!("{text:?} is not an order that is allowed."),
            ));
        }
    };
    Ok(Order { by, descending })
}

/// The decoded pairs of a query string: `%2B` is a plus, a plus is a space.
struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn read(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn all(&self, name: &str) -> Result<Vec<String>, Failure> {
        let values: Vec<_> = self
            .0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .collect();
        if values.len() > VALUES {
            return Err(Failure::invalid(name, format!("{name} accepts up to {VALUES} values.")));
        }
        Ok(values)
    }

    fn ids(&self, name: &str) -> Result<Ids, Failure> {
        let mut ids = Ids::default();
        for value in self.all(name)? {
            match value.strip_prefix('-') {
                Some(id) => ids.exclude.push(id.to_owned()),
                None => ids.include.push(value.strip_prefix('+').unwrap_or(&value).to_owned()),
            }
        }
        Ok(ids)
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, Failure> {
        match self.first(name) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| Failure::invalid(name, format!("{name} must be an integer."))),
        }
    }

    fn bounds(&self, name: &str) -> Result<Bounds, Failure> {
        Ok(Bounds {
            after: self.integer(&format!("{name}_after"))?,
            before: self.integer(&format!("{name}_before"))?,
        })
    }
}
