// A small application with a table of users. `list` prints them as JSON; `add` makes those that it
// reads from stdin as JSON, as an application does that invites people. `organizations` prints the
// organizations with their members.
import { PrismaPg } from '@prisma/adapter-pg';
import { json } from 'node:stream/consumers';

import { PrismaClient, type Prisma } from './generated/client';

const prisma = new PrismaClient({
  adapter: new PrismaPg({ connectionString: process.env.DATABASE_URL }),
});

switch (process.argv[2]) {
  case 'list': {
    const users = await prisma.user.findMany({ include: { posts: true }, orderBy: { email: 'asc' } });
    console.log(JSON.stringify(users));
    break;
  }
  case 'add':
    for (const user of (await json(process.stdin)) as Prisma.UserCreateInput[]) {
      await prisma.user.create({ data: user });
    }
    break;
  case 'organizations': {
    const members = { include: { user: true }, orderBy: { user: { clerkId: 'asc' } } } as const;
    const organizations = await prisma.organization.findMany({ include: { members }, orderBy: { clerkId: 'asc' } });
    console.log(JSON.stringify(organizations));
    break;
  }
  default:
    console.error('usage: npm run users -- list | add | organizations');
    process.exitCode = 2;
}
await prisma.$disconnect();
