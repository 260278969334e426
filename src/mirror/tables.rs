//! The bookkeeping tables of the schema `clerk`, as far as the query builder needs them. The tables
//! of objects follow from their [`crate::resource::Resource`].

diesel::table! {
    #[sql_name = "rejected"]
    clerk.rejected_objects (resource, object_id) {
        resource -> Text,
        object_id -> Text,
        reason -> Text,
        first_seen_at -> Timestamptz,
        last_seen_at -> Timestamptz,
        document -> Nullable<Text>,
        digest -> Nullable<Bytea>,
        created_at -> Nullable<Timestamptz>,
        sqlstate -> Nullable<Text>,
        run -> Nullable<BigInt>,
    }
}

diesel::table! {
    #[sql_name = "missing"]
    clerk.missing_objects (resource, object_id) {
        resource -> Text,
        object_id -> Text,
        walk -> BigInt,
        found_at -> Timestamptz,
        state -> Text,
        hold -> Text,
        held_at -> Nullable<Timestamptz>,
        approved_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    clerk.sync_runs (id) {
        id -> BigInt,
        kind -> Text,
        holder -> Text,
        started_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
        outcome -> Text,
        resumed -> Nullable<BigInt>,
        created -> BigInt,
        updated -> BigInt,
        refreshed -> BigInt,
        deleted -> BigInt,
        unchanged -> BigInt,
        held -> BigInt,
        rejected -> BigInt,
        requests -> BigInt,
        plan -> Nullable<Text>,
        error -> Nullable<Text>,
        freshness_ms -> Nullable<BigInt>,
        approved -> BigInt,
        age_count -> BigInt,
        ages_ms -> Nullable<Array<BigInt>>,
        resource -> Text,
    }
}

diesel::table! {
    clerk.sync_state (only_row) {
        only_row -> Bool,
        instance_id -> Nullable<Text>,
        environment_type -> Nullable<Text>,
        pinned_at -> Nullable<Timestamptz>,
        lease_holder -> Nullable<Text>,
        lease_epoch -> BigInt,
        lease_expires_at -> Nullable<Timestamptz>,
        lease_ttl -> Nullable<Interval>,
        digest_key -> Bytea,
        excluded -> Array<Text>,
        erasing -> Array<Text>,
    }
}

diesel::table! {
    clerk.resource_state (resource) {
        resource -> Text,
        checkpoint -> Nullable<Jsonb>,
        watermark -> Nullable<Timestamptz>,
        objects -> BigInt,
        imported_at -> Nullable<Timestamptz>,
        rereads -> Bool,
    }
}

diesel::table! {
    clerk.projections (table_name) {
        table_name -> Text,
        resource -> Text,
        mapping -> Nullable<Text>,
        applied_at -> Nullable<Timestamptz>,
        removes_since -> Nullable<Timestamptz>,
        hold -> Text,
        held_mapping -> Nullable<Text>,
        held_changes -> Nullable<BigInt>,
        held_at -> Nullable<Timestamptz>,
        approved_at -> Nullable<Timestamptz>,
        problem -> Nullable<Text>,
        rows -> Nullable<BigInt>,
        repaired -> Nullable<BigInt>,
        compared_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    clerk.departures (table_name, object_id) {
        table_name -> Text,
        object_id -> Text,
        reason -> Text,
        found_at -> Timestamptz,
        hold -> Text,
        held_at -> Nullable<Timestamptz>,
        approved_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    clerk.rejected_rows (table_name, object_id) {
        table_name -> Text,
        object_id -> Text,
        action -> Text,
        reason -> Text,
        sqlstate -> Nullable<Text>,
        first_seen_at -> Timestamptz,
        last_seen_at -> Timestamptz,
        run -> Nullable<BigInt>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(missing_objects, rejected_objects, sync_runs);
