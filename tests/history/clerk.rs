//! What happens at Clerk: users are created, changed, imported, banned, deleted and created again.

use std::collections::BTreeSet;

use clerk_sim::Sim;
use fastrand::Rng;
use serde_json::Value;

/// How many deleted users can be created again.
const FAREWELLS: usize = 500;

/// Clerk's simulator, and what the invariants need to know.
pub struct Clerk {
    pub sim: Sim,
    /// The users' ids.
    ids: Vec<String>,
    /// Whether the application declares addresses unique.
    pub are_addresses_unique: bool,
    /// Every deleted user, from just before the deletion.
    pub gone: BTreeSet<String>,
    /// Documents of some deleted users, to be created again with the same address.
    farewells: Vec<Value>,
}

impl Clerk {
    pub fn new(sim: Sim) -> Self {
        Self {
            ids: sim.user_ids(),
            sim,
            are_addresses_unique: false,
            gone: BTreeSet::new(),
            farewells: Vec::new(),
        }
    }

    /// Makes one random change. Returns what it did.
    pub fn happen(&mut self, dice: &mut Rng) -> &'static str {
        let user = dice.choice(&self.ids).cloned();
        match (dice.u32(0..100), user) {
            (..15, Some(_)) if self.are_addresses_unique => self.exchange(dice),
            (0..22, _) | (_, None) => self.create(),
            (22..50, Some(id)) => {
                let plan = dice.u32(..);
                assert!(self.sim.update(&id, |user| user["public_metadata"] = plan.into()));
                "users updated"
            }
            (50..58, Some(id)) => {
                self.ban(&id);
                "users banned, or let in again"
            }
            (58..66, Some(id)) => {
                self.import(dice, &id);
                "users imported with an old date"
            }
            (66..70, Some(id)) => {
                let created_at = dice.i64(1_500_000_000_000..1_750_000_000_000);
                assert!(self.sim.update(&id, |user| user["created_at"] = created_at.into()));
                "created_at patched"
            }
            (70..76, Some(_)) if !self.farewells.is_empty() => {
                let mut document = self.farewells.swap_remove(dice.usize(..self.farewells.len()));
                document["id"] = format!("user_again{:018x}", dice.u64(..)).into();
                document["created_at"] = now().into();
                document["updated_at"] = now().into();
                self.ids.push(self.sim.insert(document));
                "users created again with the same address"
            }
            // Without any users, deletions would be held.
            (70.., Some(_)) if self.ids.len() == 1 => self.create(),
            (70.., Some(_)) => {
                let id = self.ids.swap_remove(dice.usize(..self.ids.len()));
                if self.farewells.len() < FAREWELLS {
                    self.farewells.extend(self.sim.document(&id));
                }
                self.delete(id);
                "users deleted"
            }
        }
    }

    fn delete(&mut self, id: String) {
        self.gone.insert(id.clone());
        assert!(self.sim.delete(&id));
    }

    /// Deletes this user.
    pub fn deletes(&mut self, id: &str) {
        self.ids.retain(|other| other != id);
        self.delete(id.to_owned());
    }

    /// Deletes `count` users at once, but never all.
    pub fn mass_deletion(&mut self, dice: &mut Rng, count: usize) {
        dice.shuffle(&mut self.ids);
        let count = count.min(self.ids.len().saturating_sub(1));
        for id in self.ids.split_off(self.ids.len() - count) {
            self.delete(id);
        }
    }

    /// Returns `count` different users.
    pub fn some(&self, dice: &mut Rng, count: usize) -> Vec<String> {
        let mut ids = self.ids.clone();
        dice.shuffle(&mut ids);
        ids.truncate(count);
        ids
    }

    /// Passes addresses on among two to four users in a cycle. One of them may end without any.
    fn exchange(&self, dice: &mut Rng) -> &'static str {
        const ADDRESSES: [&str; 2] = ["email_addresses", "primary_email_address_id"];
        let count = dice.usize(2..5);
        let ids = self.some(dice, count);
        let mut addresses: Vec<[Value; 2]> = ids
            .iter()
            .map(|id| {
                let document = self.sim.document(id).unwrap();
                ADDRESSES.map(|field| document[field].clone())
            })
            .collect();
        addresses.rotate_left(1);
        if dice.u32(0..4) == 0 {
            addresses[0] = [Value::Array(Vec::new()), Value::Null];
        }
        // A user cannot take an address that another one still has.
        let none = || [Value::Array(Vec::new()), Value::Null];
        let given = ids.iter().map(|id| (id, none()));
        for (id, values) in given.chain(ids.iter().zip(addresses)) {
            let changed = self.sim.update(id, |user| {
                for (field, value) in ADDRESSES.into_iter().zip(values) {
                    user[field] = value;
                }
            });
            assert!(changed);
        }
        "addresses exchanged"
    }

    /// Returns one of the users.
    pub fn anybody(&self, dice: &mut Rng) -> String {
        dice.choice(&self.ids).cloned().unwrap_or_default()
    }

    fn create(&mut self) -> &'static str {
        self.creates();
        "users created"
    }

    /// Creates a user. Returns its id.
    pub fn creates(&mut self) -> String {
        let id = self.sim.create_random();
        self.ids.push(id.clone());
        id
    }

    /// Returns the largest number of users that there can have been.
    pub fn most(&self) -> usize {
        self.ids.len() + self.gone.len()
    }

    /// Bans a user, or lifts the ban, without a new `updated_at`.
    fn ban(&self, id: &str) {
        let mut document = self.sim.document(id).unwrap();
        document["banned"] = Value::from(document["banned"] != true);
        self.sim.insert(document);
    }

    /// Inserts a copy of a user with another id and a creation date of long ago.
    fn import(&mut self, dice: &mut Rng, id: &str) {
        let mut document = self.sim.document(id).unwrap();
        document["id"] = format!("user_imported{:016x}", dice.u64(..)).into();
        document["created_at"] = dice.i64(1_400_000_000_000..1_500_000_000_000).into();
        document["updated_at"] = now().into();
        if self.are_addresses_unique {
            document["email_addresses"] = Value::Array(Vec::new());
            document["primary_email_address_id"] = Value::Null;
        }
        self.ids.push(self.sim.insert(document));
    }
}

pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_millis()).unwrap()
}
