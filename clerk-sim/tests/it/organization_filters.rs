//! Filters of the lists of organizations and what belongs to them.

use clerk_sim::{Kind, OrganizationOptions, PerOrganization};
use serde_json::Value;

use crate::support::{Clerk, id, ids};

/// A list, and what it holds without filters, in ascending (`created_at`, id) order.
struct List<'a> {
    clerk: &'a Clerk,
    path: String,
    all: Vec<Value>,
}

impl<'a> List<'a> {
    fn of(clerk: &'a Clerk, path: &str, kind: Kind, ids: &[String]) -> Self {
        let all = ids.iter().filter_map(|id| clerk.sim.object(kind, id));
        Self {
            clerk,
            path: path.to_owned(),
            all: all.collect(),
        }
    }

    fn whole(clerk: &'a Clerk, path: &str, kind: Kind) -> Self {
        Self::of(clerk, path, kind, &clerk.sim.ids(kind))
    }

    /// Checks that a filter means those that match, which must be some.
    async fn check(&self, query: &str, matches: impl Fn(&Value) -> bool) {
        let matching: Vec<_> = self.all.iter().filter(|one| matches(one)).cloned().collect();
        assert!(!matching.is_empty(), "{query} should mean something");
        let path = format!("{}?limit=500&order_by=created_at&{query}", self.path);
        let answer = self.clerk.total_list(&path).await;
        assert_eq!(ids(&answer.data()), ids(&matching), "{path}");
        assert_eq!(answer.total(), matching.len() as u64, "{path}");
    }

    async fn check_empty(&self, query: &str) {
        let answer = self.clerk.total_list(&format!("{}?{query}", self.path)).await;
        assert_eq!((answer.data().len(), answer.total()), (0, 0), "{query}");
    }
}

async fn with(users: usize, number: usize, members: &[usize]) -> Clerk {
    let members = PerOrganization::Sizes(members.to_vec());
    let options = OrganizationOptions {
        members,
        ..OrganizationOptions::number(number)
    };
    Clerk::organizations(users, options).await
}

fn contains(text: &Value, part: &str) -> bool {
    text.as_str().is_some_and(|text| text.to_lowercase().contains(part))
}

/// Whether the text at this key of an item of a list matches.
fn any(list: &Value, key: &str, matches: impl Fn(&Value) -> bool) -> bool {
    list.as_array().into_iter().flatten().any(|item| matches(&item[key]))
}

#[tokio::test]
async fn every_filter_of_organizations_means_the_matching_ones() {
    let clerk = with(50, 60, &[0, 1, 2, 5, 12]).await;
    let list = List::whole(&clerk, "/organizations", Kind::Organizations);
    let (a, b) = (id(&list.all[3]), id(&list.all[20]));
    let query = format!("organization_id={a}&organization_id=%2B{b}&organization_id={a}&organization_id=org_nobody");
    list.check(&query, |one| one["id"] == a || one["id"] == b).await;
    list.check(&format!("organization_id=-{a}"), |one| one["id"] != a).await;
    let many: String = (0..101).map(|n| format!("organization_id=org_{n}&")).collect();
    assert_eq!(clerk.refused(&format!("/organizations?{many}")).await.0, 422);
    list.check("query=ACME", |one| contains(&one["name"], "acme")).await;
    list.check("query=tion-1", |one| contains(&one["slug"], "tion-1")).await;
    list.check(&format!("query={a}"), |one| one["id"] == a).await;
    // Ids match as a whole.
    list.check_empty(&format!("query={}", &a[..10])).await;

    let users = clerk.sim.user_ids();
    let (x, y) = (&users[3], &users[40]);
    let has = |one: &Value, user: &str| clerk.sim.membership_id(&id(one), user).is_some();
    let query = format!("user_id={x}&user_id=%2B{y}&user_id=user_nobody");
    list.check(&query, |one| has(one, x) || has(one, y)).await;
    list.check(&format!("user_id=-{x}"), |one| !has(one, x)).await;
    let query = format!("user_id={x}&user_id=-{y}");
    list.check(&query, |one| has(one, x) && !has(one, y)).await;
    list.check_empty("user_id=user_nobody").await;
}

#[tokio::test]
async fn users_are_filtered_by_their_organizations() {
    let clerk = with(50, 10, &[12]).await;
    let organization = clerk.sim.ids(Kind::Organizations)[3].clone();
    let (members, others): (Vec<_>, Vec<_>) = clerk
        .sim
        .user_ids()
        .into_iter()
        .partition(|user| clerk.sim.membership_id(&organization, user).is_some());
    for (sign, expected) in [("", members), ("-", others)] {
        let query = format!("organization_id={sign}{organization}");
        let listed = clerk.list(&format!("limit=500&order_by=created_at&{query}")).await;
        assert_eq!(listed, expected);
        assert_eq!(clerk.count(&query).await, expected.len() as u64);
    }
}

/// An organization of 250 members, whose list of memberships has each user at the key `user`.
fn members(clerk: &Clerk) -> List<'_> {
    let organization = &clerk.sim.ids(Kind::Organizations)[1];
    let path = format!("/organizations/{organization}/memberships");
    let ids = clerk.sim.memberships_of(organization);
    let mut list = List::of(clerk, &path, Kind::OrganizationMemberships, &ids);
    for one in &mut list.all {
        let user = one["public_user_data"]["user_id"].as_str().expect("a user");
        one["user"] = clerk.sim.document(user).expect("the user");
    }
    list
}

#[tokio::test]
async fn members_are_filtered_by_what_they_are() {
    let clerk = with(300, 3, &[250]).await;
    let list = members(&clerk);
    let (a, b) = (id(&list.all[3]["user"]), id(&list.all[99]["user"]));
    let query = format!("user_id={a}&user_id=%2B{b}&user_id=user_nobody");
    list.check(&query, |one| one["user"]["id"] == a || one["user"]["id"] == b)
        .await;
    list.check(&format!("user_id=-{a}"), |one| one["user"]["id"] != a).await;
    for (addresses, name) in [
        ("email_addresses", "email_address"),
        ("phone_numbers", "phone_number"),
        ("web3_wallets", "web3_wallet"),
    ] {
        let mut all = list.all.iter().map(|one| &one["user"][addresses][0][name]);
        let value = all.find_map(Value::as_str).expect("a user has one");
        let query = format!("{name}={}&{name}=nobody", value.replace('+', "%2B"));
        list.check(&query, |one| any(&one["user"][addresses], name, |text| text == value))
            .await;
    }
    let mut usernames = list.all.iter().map(|one| &one["user"]["username"]);
    let username = usernames.find_map(Value::as_str).expect("a user has one");
    list.check(&format!("username={username}"), |one| {
        one["user"]["username"] == username
    })
    .await;
    list.check("role=org:admin&role=org:accountant", |one| one["role"] != "org:member")
        .await;
    for key in ["created_at", "last_active_at"] {
        // The bounds are the time of a user. Bounds are exclusive, so that one is not meant.
        let mut times: Vec<_> = list.all.iter().filter_map(|one| one["user"][key].as_i64()).collect();
        times.sort_unstable();
        let middle = times[times.len() / 2];
        let time = |one: &Value| one["user"][key].as_i64();
        list.check(&format!("{key}_before={middle}"), |one| {
            time(one).is_some_and(|time| time < middle)
        })
        .await;
        let query = format!("{key}_after={middle}&role=org:member");
        list.check(&query, |one| time(one) > Some(middle) && one["role"] == "org:member")
            .await;
    }
}

#[tokio::test]
async fn members_are_found_by_parts_of_texts() {
    let clerk = with(300, 3, &[250]).await;
    let list = members(&clerk);
    let a = id(&list.all[3]["user"]);
    list.check(&format!("query={}", &a[5..20]), |one| one["user"]["id"] == a)
        .await;
    list.check("query=lovelace", |one| contains(&one["user"]["last_name"], "lovelace"))
        .await;
    list.check("name_query=ADA", |one| {
        contains(&one["user"]["first_name"], "ada") || contains(&one["user"]["last_name"], "ada")
    })
    .await;
    list.check("username_query=ADA", |one| contains(&one["user"]["username"], "ada"))
        .await;
    list.check("email_address_query=CORP", |one| {
        any(&one["user"]["email_addresses"], "email_address", |text| {
            contains(text, "corp")
        })
    })
    .await;
    list.check("phone_number_query=155500", |one| {
        any(&one["user"]["phone_numbers"], "phone_number", |text| {
            contains(text, "155500")
        })
    })
    .await;
}

#[tokio::test]
async fn every_filter_of_invitations_and_roles_means_the_matching_ones() {
    let clerk = with(50, 60, &[2]).await;
    let list = List::whole(&clerk, "/organization_invitations", Kind::OrganizationInvitations);
    for status in ["pending", "accepted", "revoked", "expired"] {
        list.check(&format!("status={status}"), |one| one["status"] == status)
            .await;
    }
    list.check("status=pending&status=expired", |one| {
        one["status"] == "pending" || one["status"] == "expired"
    })
    .await;
    list.check("query=-2@", |one| contains(&one["email_address"], "-2@"))
        .await;

    let pending = list
        .all
        .iter()
        .find(|one| one["status"] == "pending")
        .expect("one is pending");
    let organization = pending["organization_id"].as_str().expect("an organization");
    let path = format!("/organizations/{organization}/invitations");
    let ids = clerk.sim.invitations_to(organization);
    let of_one = List::of(&clerk, &path, Kind::OrganizationInvitations, &ids);
    let address = pending["email_address"].as_str().expect("an address");
    of_one
        .check(&format!("email_address={}", address.to_uppercase()), |one| {
            one["id"] == pending["id"]
        })
        .await;
    of_one.check("status=pending", |one| one["status"] == "pending").await;
    let pending = clerk.ids(&format!("{path}/pending?limit=500")).await;
    assert_eq!(pending, clerk.ids(&format!("{path}?limit=500&status=pending")).await);

    let list = List::whole(&clerk, "/organization_roles", Kind::OrganizationRoles);
    let admin = id(&list.all[0]);
    for query in [
        "query=ADM".to_owned(),
        format!("query={admin}"),
        "query=org:adm".to_owned(),
    ] {
        list.check(&query, |one| one["id"] == admin).await;
    }
    let list = List::whole(&clerk, "/organization_permissions", Kind::OrganizationPermissions);
    list.check("query=memberships", |one| contains(&one["key"], "memberships"))
        .await;
}
