// The handler of Clerk's documentation, which keeps a table of users.
import { verifyWebhook, type WebhookEvent } from '@clerk/nextjs/webhooks';
import type { NextRequest } from 'next/server';

import { prisma } from '@/lib/prisma';

export async function POST(req: NextRequest) {
  let evt: WebhookEvent;
  try {
    evt = await verifyWebhook(req);
  } catch (err) {
    console.error('Error verifying webhook:', err);
    return new Response('Error verifying webhook', { status: 400 });
  }

  switch (evt.type) {
    case 'user.created':
    case 'user.updated': {
      const { id, email_addresses, primary_email_address_id, first_name, last_name } = evt.data;
      const primary = email_addresses.find((address) => address.id === primary_email_address_id);
      const user = {
        email: primary?.email_address ?? null,
        firstName: first_name,
        lastName: last_name,
      };
      await prisma.user.upsert({
        where: { clerkId: id },
        create: { clerkId: id, ...user },
        update: user,
      });
      break;
    }
    case 'user.deleted':
      // Without a condition, Prisma would delete every user.
      if (evt.data.id) await prisma.user.deleteMany({ where: { clerkId: evt.data.id } });
      break;
  }
  return new Response('Webhook received', { status: 200 });
}
