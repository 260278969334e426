//! The statements of `docs/privacy.md`: access to what is stored of a user, and its erasure.

use clerk_sim::{OrganizationOptions, PerOrganization};
use serde_json::json;

use crate::support::{
    organizations::{ALL, age, mirrored_company, once_all},
    pages::{code_blocks, page},
    summary::Exit,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_statements_show_a_user_and_then_remove_the_user() {
    let organizations = OrganizationOptions {
        members: PerOrganization::Sizes(vec![3, 5]),
        ..OrganizationOptions::number(2)
    };
    let fixture = mirrored_company(5, organizations).await;
    let user = fixture.sim.user_ids()[2].clone();
    fixture
        .sim
        .update(&user, |user| user["first_name"] = json!("Ada of the erasure"));
    once_all(&fixture).await;
    let page = page("docs/privacy.md");
    let [access, erasure] = code_blocks(&page, "sql")[..] else {
        panic!("the page has other statements")
    };
    let of_user = |sql: &str| sql.replace("user_…", &user);
    let mut shown = 0;
    for statement in of_user(access)
        .split(';')
        .filter(|statement| !statement.trim().is_empty())
    {
        shown += fixture.db.client.query(statement, &[]).await.unwrap().len();
    }
    assert!(shown >= 3, "{shown}");

    age(&fixture.db).await;
    fixture.sim.delete(&user);
    let marks = [ALL, ("CLERK2PG_DELETES__MODE", "mark")];
    fixture.once_with(&marks).await.assert_exit(Exit::Ok);
    let whole = "SELECT count(*) FROM clerk.users WHERE first_name = 'Ada of the erasure'";
    assert_eq!(fixture.db.number(whole).await, 1);
    fixture.db.execute(&of_user(erasure)).await;
    for (table, column) in [("users", "u.id"), ("organization_memberships", "u.user_id")] {
        let rows = format!("SELECT count(*) FROM clerk.{table} AS u WHERE {column} = '{user}'");
        assert_eq!(fixture.db.number(&rows).await, 0, "{table}");
    }
    let left = format!("SELECT string_agg(type, ' ') FROM clerk.events WHERE payload::text LIKE '%{user}%'");
    assert_eq!(fixture.db.text(&left).await.as_deref(), Some("user.deleted"));
    // Nothing comes back, and nothing is missing.
    let again = fixture.once_with(&marks).await;
    again.assert_exit(Exit::Ok);
    assert_eq!(again.json()["created"], 0);
    assert_eq!(fixture.db.number("SELECT count(*) FROM clerk.users").await, 4);
}
