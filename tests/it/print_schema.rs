//! The types that `print-schema` prints, against the real tables and with the real tools.

use std::collections::BTreeMap;

use clerk_sim::{OrganizationOptions, PerOrganization};
use serde_json::{Value, json};

use crate::support::{
    database::Database,
    fixture::Fixture,
    node_app::NodeApp,
    organizations::{mirrored_company, once_all},
};

/// Returns what `print-schema` prints.
async fn printed(fixture: &Fixture, format: &str) -> String {
    // It needs no configuration.
    let ran = fixture
        .run_with(
            &["print-schema", "--format", format],
            &[("DATABASE_URL", ""), ("CLERK_SECRET_KEY", "")],
        )
        .await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    ran.stdout
}

/// Returns the columns of the schema `clerk` with their types, by table. Columns of tables say if they are
/// never NULL; those of views cannot.
async fn columns(database: &Database) -> BTreeMap<String, Vec<String>> {
    let sql = "SELECT c.table_name, pg_catalog.array_agg(c.column_name || ' ' || c.data_type || c.udt_name ||
                   CASE WHEN v.table_name IS NULL AND c.is_nullable = 'NO' THEN ' NOT NULL' ELSE '' END
                   ORDER BY c.column_name)
               FROM information_schema.columns AS c LEFT JOIN information_schema.views AS v USING (table_schema, table_name)
               WHERE c.table_schema = 'clerk' GROUP BY 1";
    let rows = database.client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn company() -> Fixture {
    let organizations = OrganizationOptions {
        members: PerOrganization::Sizes(vec![0, 1, 4]),
        invitations: PerOrganization::Sizes(vec![2]),
        ..OrganizationOptions::number(3)
    };
    mirrored_company(9, organizations).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_prints_every_column_that_the_tables_have() {
    let (fixture, empty) = (company().await, Database::new().await);
    empty.execute(&printed(&fixture, "sql").await).await;
    let (made, mut expected) = (columns(&empty).await, columns(&fixture.db).await);
    expected.retain(|table, _| made.contains_key(table));
    let views = ["members", "user_events"];
    let without_null = |columns: &[String]| columns.iter().map(|column| column.replace(" NOT NULL", "")).collect();
    for (table, columns) in &made {
        let printed: Vec<String> = match views.contains(&&**table) {
            true => without_null(columns),
            false => columns.clone(),
        };
        assert_eq!(printed, expected[table], "{table}");
    }
    assert_eq!(made.len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn prisma_drizzle_and_kysely_read_all_tables_by_it() {
    let Some(app) = NodeApp::install_from("tests/it/schema_readers").await else {
        return;
    };
    let fixture = company().await;
    let user = fixture.sim.user_ids()[0].clone();
    fixture.sim.update(&user, |user| user["first_name"] = json!("Ada"));
    once_all(&fixture).await;
    for (format, file) in [
        ("prisma", "prisma/clerk.prisma"),
        ("drizzle", "drizzle.ts"),
        ("kysely", "kysely.ts"),
    ] {
        app.write(file, &printed(&fixture, format).await);
    }
    app.succeed(&fixture, "generate", &[], "").await;
    app.succeed(&fixture, "types", &[], "").await;
    let ddl = app.succeed(&fixture, "ddl", &[], "").await;
    assert!(ddl.contains(r#"CREATE TABLE "clerk"."users""#), "{ddl}");

    let read: Value = serde_json::from_str(&app.succeed(&fixture, "read", &[], "").await).unwrap();
    let mut expected = BTreeMap::new();
    for table in read["prisma"].as_object().unwrap().keys() {
        let rows = fixture.db.number(&format!("SELECT count(*) FROM clerk.{table}")).await;
        assert!(rows > 0, "{table}");
        expected.insert(table.clone(), rows);
    }
    assert_eq!(expected.len(), 9);
    for library in ["prisma", "drizzle", "kysely"] {
        assert_eq!(read[library], json!(expected), "{library}");
    }
}
