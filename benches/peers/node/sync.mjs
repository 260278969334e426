// Copies everything of Clerk's users into a table "User".
import { Prisma, PrismaClient } from '@prisma/client';

import { copyUsers } from './copy.mjs';

function upsert(prisma, user) {
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

await copyUsers(PrismaClient, { migration: 'prisma/migrations/0_init/migration.sql', key: 'id', upsert });
