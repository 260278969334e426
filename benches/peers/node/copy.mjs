// Copies Clerk's users into a Prisma model `user`, as an application would with @clerk/backend.
import { readFile } from 'node:fs/promises';

import { createClerkClient } from '@clerk/backend';
import { PrismaPg } from '@prisma/adapter-pg';

// The largest page of Clerk.
const PAGE = 500;
// Prisma passes at most 32767 values to a statement, so `notIn` cannot have all ids.
const IDS = 10_000;

const { CLERK_API_URL: apiUrl, CLERK_SECRET_KEY: secretKey, DATABASE_URL: connectionString } = process.env;
const clerk = createClerkClient({ apiUrl, secretKey });

// Does what `prisma migrate deploy` does. Its engine is not an npm package.
async function createTable(prisma, migration) {
  const [{ exists }] = await prisma.$queryRaw`SELECT to_regclass('"User"') IS NOT NULL AS exists`;
  if (!exists) await prisma.$executeRawUnsafe(await readFile(new URL(migration, import.meta.url), 'utf8'));
}

/** Upserts all users, and returns their ids. */
async function upsertUsers(upsert) {
  const seen = new Set();
  for (let offset = 0; ; offset += PAGE) {
    const { data: users } = await clerk.users.getUserList({ limit: PAGE, offset, orderBy: '+created_at' });
    // Concurrent over the pool: faster than sequential, and than one $transaction.
    await Promise.all(users.map(upsert));
    for (const { id } of users) seen.add(id);
    if (users.length < PAGE) return seen;
  }
}

/** Deletes the users that Clerk did not list. */
async function deleteOrphans(prisma, key, seen) {
  let last;
  do {
    const rows = await prisma.user.findMany({
      select: { [key]: true },
      where: { [key]: { gt: last } },
      orderBy: { [key]: 'asc' },
      take: IDS,
    });
    const orphans = rows.map((row) => row[key]).filter((id) => !seen.has(id));
    if (orphans.length) await prisma.user.deleteMany({ where: { [key]: { in: orphans } } });
    last = rows.at(-1)?.[key];
  } while (last);
}

/**
 * Syncs once. `migration` is the file that creates the table, `key` the field with Clerk's id, and
 * `upsert` stores a user.
 */
export async function copyUsers(PrismaClient, { migration, key, upsert }) {
  // The default pool of ten connections is the fastest: with more, Node is the bottleneck.
  const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString }) });
  await createTable(prisma, migration);
  const seen = await upsertUsers((user) => upsert(prisma, user));
  await deleteOrphans(prisma, key, seen);
  await prisma.$disconnect();
}
