//! Failures, one on each line, for the test that nothing secret is printed.

use clerk_sim::{Effect, Endpoint, ErrorAnswer, ErrorBody, Rule};

use crate::{
    secrets::{KEY, PASSWORD, PROXY_PASSWORD, Scene, WEBHOOK_SECRET, WRONG_KEY, WRONG_PASSWORD, encoded},
    support::faults::error,
};

type Case = (&'static str, fn(&mut Scene));

/// An endpoint at which nobody listens.
const AWAY: &str = "http://127.0.0.1:1/";

pub const CASES: &[Case] = &[
    ("nothing", |_| {}),
    // The key.
    ("a wrong key", |s| s.set("CLERK_SECRET_KEY", WRONG_KEY)),
    ("a key with another line", |s| {
        s.set("CLERK_SECRET_KEY", format!("{KEY}\n{WRONG_KEY}"))
    }),
    ("a key with spaces", |s| s.set("CLERK_SECRET_KEY", format!(" {KEY} "))),
    ("a key that is not ASCII", |s| {
        s.set("CLERK_SECRET_KEY", format!("{KEY}é"))
    }),
    ("a key without its beginning", |s| s.set("CLERK_SECRET_KEY", &KEY[8..])),
    ("a key as its file", |s| {
        (s.set("CLERK_SECRET_KEY", ""), s.set("CLERK_SECRET_KEY_FILE", KEY)).1
    }),
    ("a key's file that is a folder", |s| {
        (s.set("CLERK_SECRET_KEY", ""), s.set("CLERK_SECRET_KEY_FILE", "/")).1
    }),
    ("a key's file with another in it", |s| {
        (
            s.set("CLERK_SECRET_KEY", ""),
            s.set("CLERK_SECRET_KEY_FILE", s.file(&format!("{KEY}\n{WRONG_KEY}\n"))),
        )
            .1
    }),
    ("a misspelt variable", |s| s.set("CLERK2PG_CLERK__SECRET_KYE", KEY)),
    ("the key as Clerk's address", |s| s.set("CLERK_API_URL", KEY)),
    ("the key in Clerk's address", |s| {
        s.set(
            "CLERK_API_URL",
            s.clerk_url().replace("//", &format!("//{}:@", encoded(KEY))),
        )
    }),
    ("the key in the address of a Clerk that is away", |s| {
        s.set("CLERK_API_URL", format!("http://user:{}@127.0.0.1:1", encoded(KEY)))
    }),
    ("the key as a password in Clerk's address", |s| {
        s.set(
            "CLERK_API_URL",
            s.clerk_url().replace("//", &format!("//user:{}@", encoded(KEY))),
        )
    }),
    ("the database's address as Clerk's", |s| {
        s.set("CLERK_API_URL", s.url(&encoded(PASSWORD)))
    }),
    ("the key as the database's address", |s| s.set("DATABASE_URL", KEY)),
    ("the key as where to listen", |s| s.set("CLERK2PG_HTTP__LISTEN", KEY)),
    // The database's address.
    ("a wrong password", |s| s.set("DATABASE_URL", s.url(WRONG_PASSWORD))),
    ("a password with an @ and a / of its own", |s| {
        s.set("DATABASE_URL", s.url(PASSWORD))
    }),
    ("a password with a / of its own", |s| {
        s.set("DATABASE_URL", s.url(&PASSWORD.replace('@', "")))
    }),
    ("a password with a % of its own", |s| {
        s.set("DATABASE_URL", s.url(&format!("%{WRONG_PASSWORD}")))
    }),
    ("a password with a ? of its own", |s| {
        s.set("DATABASE_URL", s.url(&format!("?{WRONG_PASSWORD}/x?{WRONG_PASSWORD}")))
    }),
    ("a server that is away", |s| {
        s.set(
            "DATABASE_URL",
            format!("postgres://app:{}@127.0.0.1:1/app", encoded(PASSWORD)),
        )
    }),
    ("a server that is nowhere", |s| {
        s.set(
            "DATABASE_URL",
            format!("postgres://app:{}@nowhere.invalid/app", encoded(PASSWORD)),
        )
    }),
    ("a port that is none", |s| {
        s.set(
            "DATABASE_URL",
            format!("postgres://app:{}@localhost:port/app", encoded(PASSWORD)),
        )
    }),
    ("another database system", |s| {
        s.set(
            "DATABASE_URL",
            format!("mysql://app:{}@localhost/app", encoded(PASSWORD)),
        )
    }),
    ("a slash too few", |s| {
        s.set(
            "DATABASE_URL",
            format!("postgres:/app:{}@localhost/app", encoded(PASSWORD)),
        )
    }),
    ("a host that is not closed", |s| {
        s.set("DATABASE_URL", format!("postgres://app:{}@[::1/app", encoded(PASSWORD)))
    }),
    ("an unknown parameter", |s| {
        s.set(
            "DATABASE_URL",
            format!("{}?passwort={WRONG_PASSWORD}", s.url(&encoded(PASSWORD))),
        )
    }),
    ("words with a space in the password", |s| {
        s.set(
            "DATABASE_URL",
            format!("host=localhost password={WRONG_PASSWORD} {PASSWORD}"),
        )
    }),
    ("the database's address as its file", |s| {
        (
            s.set("DATABASE_URL_FILE", s.url(&encoded(PASSWORD))),
            s.set("DATABASE_URL", ""),
        )
            .1
    }),
    ("words as their file", |s| {
        (
            s.set("DATABASE_URL_FILE", format!("host=localhost password={WRONG_PASSWORD}")),
            s.set("DATABASE_URL", ""),
        )
            .1
    }),
    ("a password in a variable", |s| {
        (
            s.set("DATABASE_URL", s.url("").replace(":@", "@")),
            s.set("PGPASSWORD", WRONG_PASSWORD),
        )
            .1
    }),
    ("a password in an open file", |s| {
        (
            s.set("DATABASE_URL", s.url("").replace(":@", "@")),
            s.set("PGPASSFILE", s.file(&format!("*:*:*:*:{PASSWORD}"))),
        )
            .1
    }),
    ("a password in a broken file", |s| {
        (
            s.set("DATABASE_URL", s.url("").replace(":@", "@")),
            s.set("PGPASSFILE", s.file(PASSWORD)),
        )
            .1
    }),
    // The file.
    ("a file with both", |s| {
        s.config(&format!(
            "[clerk]\nsecret_key = '{KEY}'\napi_url = '{}'\n[database]\nurl = '{}'\n",
            s.clerk_url(),
            s.url(&encoded(PASSWORD))
        ))
    }),
    ("a quote that is not closed", |s| {
        s.config(&format!("[clerk]\nsecret_key = \"{KEY}\n"))
    }),
    ("a file of a key alone", |s| s.config(KEY)),
    ("two keys", |s| {
        s.config(&format!(
            "[clerk]\nsecret_key = \"{KEY}\"\nsecret_key = \"{WRONG_KEY}\"\n"
        ))
    }),
    ("a list of keys", |s| {
        s.config(&format!("[clerk]\nsecret_key = [\"{KEY}\"]\n"))
    }),
    ("a misspelt setting", |s| {
        s.config(&format!("[clerk]\nsecret_kye = \"{KEY}\"\n"))
    }),
    ("a misspelt section", |s| {
        s.config(&format!(
            "clerk = \"{KEY}\"\ndatabase = \"{}\"\n",
            s.url(&encoded(PASSWORD))
        ))
    }),
    ("a table of addresses", |s| {
        s.config(&format!("[database.url]\npassword = \"{PASSWORD}\"\n"))
    }),
    ("a key in a number's place", |s| {
        s.config(&format!("[clerk]\nconcurrency = \"{KEY}\"\n"))
    }),
    ("a key in a time's place", |s| {
        s.config(&format!("[clerk]\ntimeout = \"{KEY}\"\n"))
    }),
    ("a key in a schedule's place", |s| {
        s.config(&format!("[schedule]\nfull = \"{KEY}\"\n"))
    }),
    ("a key in a word's place", |s| {
        s.config(&format!("[deletes]\nmode = \"{KEY}\"\n"))
    }),
    // Endpoints.
    ("an endpoint that is away", |s| {
        s.endpoint(&format!("http://127.0.0.1:1/?token={WRONG_PASSWORD}"), "")
    }),
    ("a password in an endpoint's address", |s| {
        s.endpoint(&format!("http://app:{WRONG_PASSWORD}@127.0.0.1:1/"), "")
    }),
    ("a token in an endpoint's address that is none", |s| {
        s.endpoint(&format!("127.0.0.1:1?token={WRONG_PASSWORD}"), "")
    }),
    ("a webhook secret without its end", |s| {
        s.endpoint(AWAY, &format!("secret = '{}'", &WEBHOOK_SECRET[..25]))
    }),
    ("a variable with half a webhook secret", |s| {
        (
            s.endpoint(AWAY, ""),
            s.set("CLERK_WEBHOOK_SECRET", &WEBHOOK_SECRET[..25]),
        )
            .1
    }),
    ("a webhook secret as its file", |s| {
        s.endpoint(AWAY, &format!("secret_file = '{WEBHOOK_SECRET}'"))
    }),
    ("a webhook secret in an event's place", |s| {
        s.endpoint(AWAY, &format!("events = ['{WEBHOOK_SECRET}']"))
    }),
    ("a webhook secret in a number's place", |s| {
        s.endpoint(AWAY, &format!("concurrency = '{WEBHOOK_SECRET}'"))
    }),
    ("a webhook secret as a key", |s| {
        s.endpoint(AWAY, &format!("{WEBHOOK_SECRET} = 1"))
    }),
    // Between the program and Clerk.
    ("a proxy that is away", |s| {
        s.set("HTTP_PROXY", format!("http://user:{PROXY_PASSWORD}@127.0.0.1:1"))
    }),
    ("a proxy", |s| {
        s.set(
            "HTTP_PROXY",
            s.clerk_url().replace("//", &format!("//user:{PROXY_PASSWORD}@")),
        )
    }),
    ("a proxy for everything", |s| {
        s.set("ALL_PROXY", format!("socks5://user:{PROXY_PASSWORD}@127.0.0.1:1"))
    }),
    ("a proxy that is none", |s| {
        s.set("HTTP_PROXY", format!("nonsense://user:{PROXY_PASSWORD}@[::1"))
    }),
    // Clerk's errors.
    ("401", |s| s.fault(Rule::new(error(401, ErrorBody::Json)))),
    ("403", |s| s.fault(Rule::new(error(403, ErrorBody::Json)))),
    ("429", |s| {
        s.fault(Rule::new(Effect::Error(ErrorAnswer {
            status: 429,
            retry_after: Some(1),
            body: ErrorBody::Json,
        })))
    }),
    ("503", |s| s.fault(Rule::new(error(503, ErrorBody::Html)))),
    ("404 by id", |s| {
        s.fault(Rule::new(error(404, ErrorBody::Json)).on([Endpoint::Get]))
    }),
    ("HTML", |s| s.fault(Rule::new(Effect::Html))),
    ("half a page", |s| {
        s.fault(Rule::new(Effect::Truncate).on([Endpoint::List]))
    }),
    ("half an answer", |s| s.fault(Rule::new(Effect::DropDuring))),
    ("no answer", |s| s.fault(Rule::new(Effect::DropBefore))),
    ("an answer that never ends", |s| s.fault(Rule::new(Effect::Stall))),
    // Servers that echo the request and personal data.
    ("an echo in a 401", |s| {
        s.answer(
            "401 Unauthorized",
            "",
            r#"{"errors":[{"code":"ECHO","message":"ECHO","long_message":"no key is ECHO"}],"clerk_trace_id":"ECHO"}"#,
        )
    }),
    ("an echo in a 403", |s| {
        s.answer(
            "403 Forbidden",
            "cf-ray: ECHO\r\n",
            r#"{"errors":[{"code":"forbidden","message":"ECHO"}]}"#,
        )
    }),
    ("an echo in a 422", |s| {
        s.answer(
            "422 Unprocessable Entity",
            "",
            r#"{"errors":[{"code":"form","message":"(ECHO)"}]}"#,
        )
    }),
    ("an echo in a 500", |s| {
        s.answer(
            "500 Internal Server Error",
            "",
            "<html><title>Bearer ECHO</title></html>",
        )
    }),
    ("an echo in a page", |s| {
        s.answer("200 OK", "", "<html><title>ECHO</title>ECHO</html>")
    }),
    ("an echo where it leads", |s| {
        s.answer("302 Found", "location: http://ECHO/?key=ECHO\r\n", "")
    }),
    ("an echo as JSON", |s| s.answer("200 OK", "", r#""ECHO""#)),
    ("an echo as a number", |s| {
        s.answer("200 OK", "", r#"{"total_count":"ECHO","id":1,"data":"ECHO"}"#)
    }),
    ("an echo as a kind", |s| {
        s.answer(
            "200 OK",
            "",
            r#"{"id":"ins_a","environment_type":"ECHO","total_count":"ECHO","data":["ECHO"]}"#,
        )
    }),
    ("an echo that is no JSON", |s| s.answer("200 OK", "", "ECHO")),
    ("an echo in a header", |s| {
        s.answer(
            "200 OK",
            "date: ECHO\r\ncontent-type: ECHO\r\nset-cookie: ECHO\r\n",
            "[]",
        )
    }),
    ("an echo that is no header", |s| s.answer("200 OK", "ECHO\r\n", "[]")),
    // Postgres' errors.
    ("an address twice", |s| {
        s.sql("CREATE UNIQUE INDEX ON clerk.users (primary_email)")
    }),
    ("an address twice, in small letters", |s| {
        s.sql("CREATE UNIQUE INDEX ON clerk.users (lower(primary_email), primary_phone)")
    }),
    ("a check", |s| {
        s.sql("ALTER TABLE clerk.users ADD CHECK (username IS DISTINCT FROM 'refused')")
    }),
    ("a name that is no number", |s| {
        s.sql("ALTER TABLE clerk.users ADD number int GENERATED ALWAYS AS (CASE WHEN username = 'refused' THEN last_name::int END) STORED")
    }),
    ("an address that is no number", |s| {
        s.sql("ALTER TABLE clerk.users ADD number int GENERATED ALWAYS AS (CASE WHEN username = 'refused' THEN primary_email::int END) STORED")
    }),
    ("an exception of a trigger", |s| s.sql(RAISE)),
    ("a trigger without a right", |s| s.sql(DENY)),
    ("a deadlock", |s| s.sql(DEADLOCK)),
    ("a statement that takes too long", |s| s.sql(TIMEOUT)),
    ("a trigger that ends the connection", |s| s.sql(END)),
    ("a row held back", |s| {
        s.sql("CREATE TABLE orders AS SELECT id, primary_email FROM clerk.users; ALTER TABLE orders ADD FOREIGN KEY (id) REFERENCES clerk.users")
    }),
    ("a row held back by its address", |s| {
        s.sql("ALTER TABLE clerk.users ADD UNIQUE (primary_email);
        CREATE TABLE orders AS SELECT primary_email FROM clerk.users; ALTER TABLE orders ADD FOREIGN KEY (primary_email) REFERENCES clerk.users (primary_email)")
    }),
    ("a database that takes no writes", |s| {
        s.sql("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$")
    }),
    ("held deletions", |s| {
        (
            s.set("CLERK2PG_DELETES__MIN_COUNT", "0"),
            s.set("CLERK2PG_DELETES__MAX_COUNT", "0"),
            s.set("CLERK2PG_DELETES__MAX_PERCENT", "0"),
        )
            .2
    }),
];

macro_rules! trigger {
    ($raise:literal) => {
        concat!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.username = 'refused' THEN ",
            $raise,
            "; END IF; RETURN NEW; END $$; CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON clerk.users FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    };
}

const RAISE: &str = trigger!(
    "RAISE EXCEPTION 'nobody writes to \"%\" (<%>)', NEW.primary_email, NEW.primary_email USING DETAIL = NEW.primary_email, HINT = NEW.primary_email"
);
const DENY: &str =
    trigger!("RAISE EXCEPTION 'permission denied for %', NEW.primary_email USING ERRCODE = 'insufficient_privilege'");
const DEADLOCK: &str =
    trigger!("RAISE EXCEPTION 'deadlock detected' USING ERRCODE = 'deadlock_detected', DETAIL = NEW.primary_email");
const TIMEOUT: &str = trigger!(
    "RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = 'query_canceled', DETAIL = NEW.primary_email"
);
const END: &str = trigger!("PERFORM pg_terminate_backend(pg_backend_pid()), length(NEW.primary_email)");
