// Copies id, address and name of Clerk's users into an application's own table "User".
import { PrismaClient } from './node_modules/.prisma/app/index.js';

import { copyUsers } from './copy.mjs';

function upsert(prisma, user) {
  // As clerk2pg's full_name: `fullName` keeps spaces within the name.
  const names = [user.firstName, user.lastName].map((name) => name?.trim()).filter(Boolean);
  const data = {
    email: user.primaryEmailAddress?.emailAddress ?? '',
    name: names.join(' ') || user.username || '',
  };
  return prisma.user.upsert({ where: { clerkId: user.id }, create: { clerkId: user.id, ...data }, update: data });
}

await copyUsers(PrismaClient, { migration: 'app/table.sql', key: 'clerkId', upsert });
