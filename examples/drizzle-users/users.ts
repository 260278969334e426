// A small application with a table of users. `list` prints them as JSON; `add` makes those that it
// reads from stdin as JSON, as an application does that invites people.
import { json } from 'node:stream/consumers';
import { drizzle } from 'drizzle-orm/node-postgres';
import { asc } from 'drizzle-orm';
import pg from 'pg';

import * as schema from './schema';

const { users } = schema;
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL });
const db = drizzle(pool, { schema });

switch (process.argv[2]) {
  case 'list':
    console.log(JSON.stringify(await db.select().from(users).orderBy(asc(users.email))));
    break;
  case 'add':
    await db.insert(users).values((await json(process.stdin)) as (typeof users.$inferInsert)[]);
    break;
  default:
    console.error('usage: npm run users -- list | add');
    process.exitCode = 2;
}
await pool.end();
