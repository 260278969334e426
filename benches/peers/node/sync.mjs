// Copies Clerk's users into the table "User", as an application would with @clerk/backend and Prisma.
import { readFile } from 'node:fs/promises';

import { createClerkClient } from '@clerk/backend';
import { PrismaPg } from '@prisma/adapter-pg';
import { Prisma, PrismaClient } from '@prisma/client';

// The largest page of Clerk.
const PAGE = 500;
// Prisma passes at most 32767 values to a statement, so `notIn` cannot have all ids.
const IDS = 10_000;

const { CLERK_API_URL: apiUrl, CLERK_SECRET_KEY: secretKey, DATABASE_URL: connectionString } = process.env;
const clerk = createClerkClient({ apiUrl, secretKey });
// The default pool of ten connections is the fastest: with more, Node is the bottleneck.
const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString }) });

// Does what `prisma migrate deploy` does. Its engine is not an npm package.
async function createTable() {
  const [{ exists }] = await prisma.$queryRaw`SELECT to_regclass('"User"') IS NOT NULL AS exists`;
  if (!exists) {
    const migration = new URL('prisma/migrations/0_init/migration.sql', import.meta.url);
    await prisma.$executeRawUnsafe(await readFile(migration, 'utf8'));
  }
}

function upsert(user) {
  const data = {
    email: user.primaryEmailAddress?.emailAddress ?? null,
    username: user.username ?? null,
    firstName: user.firstName ?? null,
    lastName: user.lastName ?? null,
    imageUrl: user.imageUrl ?? null,
    publicMetadata: user.publicMetadata ?? Prisma.DbNull,
    privateMetadata: user.privateMetadata ?? Prisma.DbNull,
    unsafeMetadata: user.unsafeMetadata ?? Prisma.DbNull,
    lastSignInAt: user.lastSignInAt ? new Date(user.lastSignInAt) : null,
    createdAt: new Date(user.createdAt),
    updatedAt: new Date(user.updatedAt),
    raw: user.raw,
  };
  return prisma.user.upsert({ where: { id: user.id }, create: { id: user.id, ...data }, update: data });
}

/** Upserts all users, and returns their ids. */
async function upsertUsers() {
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
async function deleteOrphans(seen) {
  let last;
  do {
    const rows = await prisma.user.findMany({
      select: { id: true },
      where: { id: { gt: last } },
      orderBy: { id: 'asc' },
      take: IDS,
    });
    const orphans = rows.map(({ id }) => id).filter((id) => !seen.has(id));
    if (orphans.length) await prisma.user.deleteMany({ where: { id: { in: orphans } } });
    last = rows.at(-1)?.id;
  } while (last);
}

await createTable();
await deleteOrphans(await upsertUsers());
await prisma.$disconnect();
