use super::*;
use crate::config::folder::Folder;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const APP: &str = "[[endpoints]]\nname = \"app\"\nurl = \"http://app:3000/api/webhooks/clerk\"\n";
const EXAMPLE: &str = "http://app:3000/api/webhooks/clerk";

/// Reads endpoints, with a secret in the environment.
fn endpoints(text: &str) -> Result<Vec<Endpoint>, ConfigError> {
    Folder::new(text).endpoints(&[("CLERK_WEBHOOK_SIGNING_SECRET", SECRET)])
}

#[track_caller]
fn assert_error(error: &ConfigError, message: &str, hint: &str) {
    assert_eq!(error.message, format!("DIR/config.toml: {message}"));
    let shown = error.hint.as_deref().unwrap_or_default();
    assert!(shown.contains(hint), "{hint:?} is not in the hint {shown:?}");
}

#[track_caller]
fn check(text: &str, message: &str, hint: &str) {
    assert_error(&endpoints(text).unwrap_err(), message, hint);
}

/// Checks an entry with one more line.
#[track_caller]
fn check_line(line: &str, problem: &str, hint: &str) {
    check(
        &format!("{APP}{line}\n"),
        &format!("[[endpoints]] app: {problem}"),
        hint,
    );
}

#[test]
fn an_entry_has_defaults() {
    let found = endpoints(APP).unwrap();
    let [app] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((app.name.as_str(), app.url.as_str()), ("app", EXAMPLE));
    let all: Vec<String> = RESOURCES.iter().flat_map(|resource| resource.event_types()).collect();
    assert_eq!(app.types, all);
    assert_eq!(all[..3], ["user.created", "user.updated", "user.deleted"]);
    assert_eq!(
        (app.start, app.concurrency, app.timeout),
        (Start::Now, 8, Duration::from_secs(15))
    );
    assert!(endpoints("").unwrap().is_empty());
    assert!(endpoints("endpoints = []\n").unwrap().is_empty());
}

#[test]
fn every_key_is_read_in_the_order_of_the_entries() {
    let second = "[[endpoints]]\nname = \"Other_2.x\"\nurl = \"https://example.com:8443/hook?x=1\"\nsecret = \"whsec_AAAA\"\n\
                  events = [\"user.deleted\", \"user.created\", \"user.deleted\"]\nstart = \"everything\"\nconcurrency = 64\ntimeout = \"5m\"\n";
    let found = endpoints(&format!("{APP}{second}")).unwrap();
    let [app, other] = found.as_slice() else {
        panic!("{found:#?}")
    };
    assert_eq!((app.name.as_str(), other.name.as_str()), ("app", "Other_2.x"));
    assert_eq!(other.url.as_str(), "https://example.com:8443/hook?x=1");
    assert_eq!(other.types, ["user.created", "user.deleted"]);
    assert_eq!(
        (other.start, other.concurrency, other.timeout),
        (Start::Everything, 64, Duration::from_secs(300))
    );
    assert_eq!((app.keys.len(), other.keys.len()), (1, 1));
}

#[test]
fn the_shipped_example_shows_the_defaults() {
    let shipped = include_str!("../../../config.toml");
    let (_, example) = shipped.split_once("\n# [[endpoints]]\n").unwrap();
    let lines = example.lines().map_while(|line| line.strip_prefix("# "));
    let text = lines.fold("[[endpoints]]\n".to_owned(), |text, line| text + line + "\n");
    for (key, _) in KEYS {
        assert!(text.contains(&format!("\n{key} = ")), "{key} is missing");
    }
    let [shown, default] = [&text, APP].map(|text| format!("{:#?}", endpoints(text).unwrap()));
    assert_eq!(shown, default);
}

#[test]
fn unknown_keys_and_misplaced_entries_are_refused() {
    check_line(
        "secretfile = \"x\"",
        "there is no key \"secretfile\"",
        "did you mean secret_file?",
    );
    check_line("Events = []", "there is no key \"Events\"", "did you mean events?");
    check(
        "[[endpoints]]\nnam = \"app\"\n",
        "entry 1 of [[endpoints]]: there is no key \"nam\"",
        "did you mean name?",
    );
    check(
        "[endpoints]\nname = \"app\"\n",
        "endpoints is not a list",
        "in double brackets",
    );
    check(
        "endpoints = [1]\n",
        "entry 1 of [[endpoints]] has no keys",
        "begin each entry with [[endpoints]]",
    );
    check(
        "[[endpoint]]\nname = \"app\"\n",
        "there is no setting endpoint",
        "did you mean endpoints?",
    );
}

#[test]
fn names_identify_endpoints() {
    let named = |name: &str| format!("[[endpoints]]\nname = {name}\nurl = \"{EXAMPLE}\"\n");
    let longest = "a".repeat(64);
    for name in ["A", "0", ".", "_x-", longest.as_str()] {
        assert_eq!(endpoints(&named(&format!("{name:?}"))).unwrap()[0].name, name);
    }
    let expected = "1 to 64 letters, digits, dots, underscores and hyphens";
    let entry = "entry 1 of [[endpoints]]";
    for name in ["''", "\"\""] {
        check(&named(name), &format!("{entry}: it has no name"), expected);
    }
    check(
        &named("'app'").replace("name = 'app'\n", ""),
        &format!("{entry}: it has no name"),
        "name = \"app\"",
    );
    for (name, shown) in [
        ("'a b'", " = \"a b\""),
        ("'ä'", " = \"ä\""),
        ("'-x'", " = \"-x\""),
        ("5", " = 5"),
        ("['a']", ""),
        ("'whsec_AAAA'", " = …"),
        ("'sk_live_AAAA'", " = …"),
        ("'http://app/?x=1'", " = …"),
        (&format!("'{longest}a'"), " = …"),
    ] {
        check(&named(name), &format!("{entry}: name{shown} cannot be used"), expected);
    }
    check(
        &format!("{APP}{APP}"),
        "[[endpoints]] app: there are two entries with this name",
        "a name of its own",
    );
}

#[test]
fn addresses_are_checked() {
    let at = |url: &str| format!("[[endpoints]]\nname = \"app\"\nurl = \"{url}\"\n");
    for url in [
        "http://localhost:3000/x",
        "http://127.0.0.1",
        "http://10.0.0.5/x",
        "http://[::1]:3000/",
        "http://app.internal/x",
        "https://example.com/x?token=hidden",
        "https://203.0.113.5/x",
    ] {
        endpoints(&at(url)).unwrap();
    }
    let app = "[[endpoints]] app";
    check(
        "[[endpoints]]\nname = \"app\"\n",
        &format!("{app}: it has no url"),
        EXAMPLE,
    );
    check(&at(""), &format!("{app}: it has no url"), EXAMPLE);
    for url in [
        "app:3000/hidden",
        "localhost:3000",
        "/api/webhooks/clerk",
        "ftp://app/hidden",
        "postgres://app/hidden",
        "http://",
        "http:///?x",
        "http://app:port/hidden",
        "http://app:99999/hidden",
        "http://ho st/hidden",
    ] {
        check(&at(url), &format!("{app}: url cannot be used"), EXAMPLE);
    }
    let port = APP.replace("\"http://app:3000/api/webhooks/clerk\"", "3000");
    check(&port, &format!("{app}: url cannot be used"), EXAMPLE);
    for url in ["http://ann:hidden@app/x", "http://hidden@app/", "https://:hidden@app/"] {
        check(
            &at(url),
            &format!("{app}: url contains a user or a password"),
            "clerk2pg signs what it sends",
        );
    }
    for (url, why) in [
        ("http://203.0.113.5/x", "not private: use https"),
        ("http://[2001:db8::1]/x", "not private: use https"),
        ("https://169.254.169.254/x", "a link-local address"),
        ("http://[fd00:ec2::254]/x", "an address of the cloud's metadata"),
        ("http://0.0.0.0:3000/x", "not the address of one host"),
    ] {
        check(
            &at(url),
            &format!("{app}: url cannot be used: its host is {why}"),
            "expected a private address",
        );
    }
}

#[test]
fn patterns_stand_for_types() {
    let types = |events: &str| {
        endpoints(&format!("{APP}events = {events}\n")).unwrap()[0]
            .types
            .join(" ")
    };
    let all: Vec<String> = RESOURCES.iter().flat_map(|resource| resource.event_types()).collect();
    assert_eq!(types("[\"*\"]"), all.join(" "));
    assert_eq!(types("[\"user.*\"]"), "user.created user.updated user.deleted");
    assert_eq!(
        types("[\"organizationInvitation.*\"]"),
        "organizationInvitation.created organizationInvitation.updated organizationInvitation.deleted \
         organizationInvitation.accepted organizationInvitation.revoked"
    );
    assert_eq!(types("[\"user.updated\"]"), "user.updated");
    assert_eq!(
        types("[\"user.deleted\", \"user.created\"]"),
        "user.created user.deleted"
    );

    let known = "the types are user.created, user.updated, user.deleted";
    for (event, nearest) in [
        ("user.creatd", "user.created"),
        ("users.*", "user.*"),
        ("User.deleted", "user.deleted"),
        ("user.", "user.*"),
        ("us*", "user.*"),
        ("user.*.x", "user.*"),
        ("", "role.*"),
    ] {
        let found = endpoints(&format!("{APP}events = [\"user.created\", \"{event}\"]\n")).unwrap_err();
        assert_error(
            &found,
            &format!("[[endpoints]] app: events: there is no type {event:?}"),
            known,
        );
        assert!(
            found.hint.unwrap().contains(&format!("did you mean {nearest}?")),
            "{event}"
        );
    }
    check_line("events = []", "events is empty", "leave it out for all types");
    for events in ["\"user.*\"", "7", "[7]", "{ x = 1 }"] {
        let error = endpoints(&format!("{APP}events = {events}\n")).unwrap_err();
        assert!(error.message.contains("[[endpoints]] app: events"), "{error}");
        assert!(error.hint.unwrap().contains("a list of types"), "{events}");
    }
}

#[test]
fn other_values_name_their_range() {
    for (value, shown) in [
        ("0", "0"),
        ("65", "65"),
        ("-1", "-1"),
        ("8.0", "8"),
        ("\"many\"", "\"many\""),
        ("true", "true"),
    ] {
        let problem = format!("concurrency = {shown} cannot be used");
        check_line(&format!("concurrency = {value}"), &problem, "a number from 1 to 64");
    }
    for (value, shown) in [
        ("\"999ms\"", "\"999ms\""),
        ("\"301s\"", "\"301s\""),
        ("\"-1s\"", "\"-1s\""),
        ("\"soon\"", "\"soon\""),
        ("15", "15"),
    ] {
        let problem = format!("timeout = {shown} cannot be used");
        check_line(
            &format!("timeout = {value}"),
            &problem,
            "a duration from \"1s\" to \"5m\"",
        );
    }
    for (key, value) in [
        ("concurrency", "1"),
        ("concurrency", "64"),
        ("timeout", "\"1s\""),
        ("timeout", "\"5m\""),
    ] {
        endpoints(&format!("{APP}{key} = {value}\n")).unwrap();
    }
    check_line(
        "start = \"later\"",
        "start = \"later\" cannot be used",
        "\"now\" or \"everything\"",
    );
    check_line(
        "start = true",
        "start = true cannot be used",
        "\"now\" or \"everything\"",
    );
    check_line("start = [\"now\"]", "start cannot be used", "\"now\" or \"everything\"");
}
