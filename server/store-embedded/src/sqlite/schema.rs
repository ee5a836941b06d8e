//! The schema and its way forward. `migrations/sqlite` holds one file per version; each runs once, in order, in a
//! transaction with the row that says so. There is no way back: an older binary refuses a newer schema.

use acb_types::ErrorCode;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::error::{Failure, Result, refuse};

/// Marks a file as ours: `ACBm`.
const APPLICATION_ID: i32 = 0x4143_426d;

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The schema's version after it; from 1 without holes.
    pub version: u32,
    /// Its file's name.
    pub name: &'static str,
    /// What it does.
    pub sql: &'static str,
}

/// All steps, in order.
pub const MIGRATIONS: &[Migration] = &[
    migration(1, "0001_registry.sql", include_str!("../../../../migrations/sqlite/0001_registry.sql")),
    migration(2, "0002_identity.sql", include_str!("../../../../migrations/sqlite/0002_identity.sql")),
    migration(3, "0003_audit.sql", include_str!("../../../../migrations/sqlite/0003_audit.sql")),
    migration(4, "0004_contexts.sql", include_str!("../../../../migrations/sqlite/0004_contexts.sql")),
    migration(5, "0005_streams.sql", include_str!("../../../../migrations/sqlite/0005_streams.sql")),
    migration(6, "0006_context_repeats.sql", include_str!("../../../../migrations/sqlite/0006_context_repeats.sql")),
];

const fn migration(version: u32, name: &'static str, sql: &'static str) -> Migration {
    Migration { version, name, sql }
}

/// Brings a database to the newest of `steps`. Answers with the version it had before.
pub(super) fn migrate(connection: &mut Connection, steps: &[Migration]) -> Result<u32> {
    let newest = steps.last().map_or(0, |step| step.version);
    check_owner(connection)?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL) STRICT",
    )?;
    let before = version(connection)?;
    if before > newest {
        let message = format!(
            "the metadata store has schema version {before}, and this program knows versions up to {newest}: start the \
             acb-server that wrote it, or a newer one"
        );
        return refuse(ErrorCode::UnsupportedFeature, message);
    }
    for step in steps.iter().filter(|step| step.version > before) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have been faster.
        if version(&transaction)? >= step.version {
            continue;
        }
        transaction.execute_batch(step.sql)?;
        transaction.execute("INSERT INTO schema_version (version, name) VALUES (?1, ?2)", (step.version, step.name))?;
        transaction.commit()?;
    }
    Ok(before)
}

fn version(connection: &Connection) -> Result<u32> {
    Ok(connection.query_row("SELECT coalesce(max(version), 0) FROM schema_version", (), |row| row.get(0))?)
}

/// Takes an empty database, or one of ours; never somebody else's.
fn check_owner(connection: &Connection) -> Result<()> {
    let id: i32 = connection.query_row("PRAGMA application_id", (), |row| row.get(0))?;
    if id == APPLICATION_ID {
        return Ok(());
    }
    let table: Option<String> =
        connection.query_row("SELECT name FROM sqlite_schema LIMIT 1", (), |row| row.get(0)).optional()?;
    if let Some(table) = table {
        return Err(Failure::Damaged(format!("the file is a database of another program, with `{table}` in it")));
    }
    Ok(connection.pragma_update(None, "application_id", APPLICATION_ID)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_a_step_and_steps_have_no_holes() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/sqlite");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('.'))
            .collect();
        files.sort();
        assert_eq!(files, MIGRATIONS.iter().map(|step| step.name).collect::<Vec<_>>());
        for (i, step) in MIGRATIONS.iter().enumerate() {
            assert_eq!(step.version as usize, i + 1);
            assert!(step.name.starts_with(&format!("{:04}_", step.version)), "{}", step.name);
        }
    }

    #[test]
    fn every_table_of_a_tenant_has_its_id_in_front() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let mut tables = connection
            .prepare(
                "SELECT t.name, group_concat(c.name ORDER BY c.pk) FROM pragma_table_list t, pragma_table_xinfo(t.name) c \
                 WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND c.pk > 0 GROUP BY t.name",
            )
            .unwrap();
        let mut servers_own = Vec::new();
        let mut rows = tables.query(()).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let (table, key): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
            if key != "tenant_id" && !key.starts_with("tenant_id,") {
                servers_own.push(table);
            }
        }
        servers_own.sort();
        assert_eq!(servers_own, ["schema_version", "settings", "signing_keys"]);
    }

    #[test]
    fn migrating_twice_is_migrating_once() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert_eq!(migrate(&mut connection, MIGRATIONS).unwrap(), 0);
        assert_eq!(migrate(&mut connection, MIGRATIONS).unwrap() as usize, MIGRATIONS.len());
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let mut connection = Connection::open_in_memory().unwrap();
        let broken = [MIGRATIONS[0], migration(2, "0002_broken.sql", "CREATE TABLE x (a); CREATE TABLE x (a);")];
        migrate(&mut connection, &broken).unwrap_err();
        assert_eq!(version(&connection).unwrap(), 1);
        migrate(&mut connection, MIGRATIONS).unwrap();
    }

    #[test]
    fn a_database_of_another_program_is_left_alone() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
        let failure = migrate(&mut connection, MIGRATIONS).unwrap_err();
        assert!(matches!(&failure, Failure::Damaged(what) if what.contains("bookmarks")), "{failure:?}");
    }
}
