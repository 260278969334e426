// Reads all tables and views of the schema clerk with the three libraries, by the types that
// `clerk2pg print-schema` prints, and prints how many rows each has read.
import { PrismaPg } from '@prisma/adapter-pg';
import { drizzle } from 'drizzle-orm/node-postgres';
import { Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';

import * as schema from './drizzle';
import { PrismaClient } from './generated/client';
import type { ClerkDatabase } from './kysely';

const connectionString = process.env.DATABASE_URL;
const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString }) });
const pool = new pg.Pool({ connectionString });
const tables = drizzle(pool);
const database = new Kysely<ClerkDatabase>({ dialect: new PostgresDialect({ pool }) });

const read = {
  prisma: {
    users: await prisma.clerkUser.findMany(),
    organizations: await prisma.clerkOrganization.findMany(),
    organization_memberships: await prisma.clerkOrganizationMembership.findMany(),
    organization_invitations: await prisma.clerkOrganizationInvitation.findMany(),
    organization_roles: await prisma.clerkOrganizationRole.findMany(),
    organization_permissions: await prisma.clerkOrganizationPermission.findMany(),
    members: await prisma.clerkMember.findMany(),
    events: await prisma.clerkEvent.findMany(),
    user_events: await prisma.clerkUserEvent.findMany(),
  },
  drizzle: {
    users: await tables.select().from(schema.clerkUsers),
    organizations: await tables.select().from(schema.clerkOrganizations),
    organization_memberships: await tables.select().from(schema.clerkOrganizationMemberships),
    organization_invitations: await tables.select().from(schema.clerkOrganizationInvitations),
    organization_roles: await tables.select().from(schema.clerkOrganizationRoles),
    organization_permissions: await tables.select().from(schema.clerkOrganizationPermissions),
    members: await tables.select().from(schema.clerkMembers),
    events: await tables.select().from(schema.clerkEvents),
    user_events: await tables.select().from(schema.clerkUserEvents),
  },
  kysely: {
    users: await database.selectFrom('clerk.users').selectAll().execute(),
    organizations: await database.selectFrom('clerk.organizations').selectAll().execute(),
    organization_memberships: await database.selectFrom('clerk.organization_memberships').selectAll().execute(),
    organization_invitations: await database.selectFrom('clerk.organization_invitations').selectAll().execute(),
    organization_roles: await database.selectFrom('clerk.organization_roles').selectAll().execute(),
    organization_permissions: await database.selectFrom('clerk.organization_permissions').selectAll().execute(),
    members: await database.selectFrom('clerk.members').selectAll().execute(),
    events: await database.selectFrom('clerk.events').selectAll().execute(),
    user_events: await database.selectFrom('clerk.user_events').selectAll().execute(),
  },
};

// Values have the types that are declared: these lines compile only if they are declared so, and fail
// if they are something else.
const [inPrisma, inDrizzle, inKysely] = [read.prisma.users[0], read.drizzle.users[0], read.kysely.users[0]];
for (const created of [inPrisma.createdAt, inDrizzle.createdAt, inKysely.created_at] satisfies Date[]) {
  created.toISOString();
}
for (const banned of [inPrisma.banned, inDrizzle.banned, inKysely.banned] satisfies (boolean | null)[]) {
  if (typeof banned !== 'boolean') throw new Error(`banned is ${typeof banned}`);
}
for (const digest of [inPrisma.digest, inDrizzle.digest, inKysely.digest] satisfies Uint8Array[]) {
  if (digest.length !== 16) throw new Error(`a digest of ${digest.length} bytes`);
}
const ids: string[] = read.kysely.events.map((event) => event.id);
const numbers: number[] = read.drizzle.events.map((event) => event.id);
const bigints: bigint[] = read.prisma.events.map((event) => event.id);
if (ids.some((id, at) => Number(id) !== numbers[at] || BigInt(id) !== bigints[at])) throw new Error('other events');

const count = (tables: Record<string, unknown[]>) =>
  Object.fromEntries(Object.entries(tables).map(([table, rows]) => [table, rows.length]));
console.log(JSON.stringify(Object.fromEntries(Object.entries(read).map(([library, tables]) => [library, count(tables)]))));
await prisma.$disconnect();
await pool.end();
