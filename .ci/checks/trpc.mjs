// Runs `synapctl up`, and talks to it as an application of V0.2 does: see trpc.sh.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

const [where, synapctl] = process.argv.slice(2);
const { createTRPCClient, httpBatchLink, httpLink, TRPCClientError } = createRequire(resolve(where, 'x.js'))('@trpc/client');

/** The address and a token, when everything is ready. */
async function ready(up) {
  const told = {};
  for await (const line of createInterface({ input: up.stdout })) {
    told.url ??= line.match(/HTTP (http:\S+)/)?.[1];
    told.token ??= line.match(/export TOKEN=(\S+)/)?.[1];
    if (line.startsWith('ready')) return told;
  }
  throw new Error('`synapctl up` ended before it was ready');
}

const refused = async (call, code, field) => {
  const error = await call.then(() => assert.fail('not refused'), (error) => error);
  assert(error instanceof TRPCClientError, String(error));
  assert.equal(error.data.code, code, error.message);
  if (field) assert.equal(error.data.fieldViolations[0].field, field);
  return error.data;
};

async function notes(linkOf, { url, token }) {
  const link = (headers) => linkOf({ url: `${url}/trpc`, headers });
  const { notes } = createTRPCClient({ links: [link({ authorization: `Bearer ${token}` })] });

  const ids = [];
  for (const [title, tags] of [['Sea', ['water']], ['Lake', ['water']], ['Hill', []]]) {
    const { note } = await notes.create.mutate({ title, tags, content: `All about the ${title} 🐋`, autoEnrich: false });
    assert.deepEqual([note.title, note.tags, note.version], [title, tags, 1]);
    ids.unshift(note.id);
  }
  const { note } = await notes.get.query({ id: ids[0], includeContent: true });
  assert.equal(note.content, 'All about the Hill 🐋');

  const first = await notes.list.query({ pageSize: 2 });
  const last = await notes.list.query({ pageSize: 2, pageToken: first.nextPageToken });
  assert.deepEqual([...first.notes, ...last.notes].map((one) => one.id), ids);
  assert.equal(last.nextPageToken, '');
  assert.equal((await notes.list.query({ tags: ['water'] })).notes.length, 2);

  const found = await notes.search.query({ query: 'lake or hil*', limit: 10 });
  assert.deepEqual(found.results.map((one) => one.note.title).sort(), ['Hill', 'Lake']);
  assert(found.results.every((one) => one.snippet.includes('**')), JSON.stringify(found));

  const { id, etag } = note;
  const updated = await notes.update.mutate({ id, etag, content: 'All about the Mountain', tags: ['rock'] });
  assert.deepEqual([updated.note.title, updated.note.tags, updated.note.version], ['Hill', ['rock'], 2]);
  assert.equal((await notes.get.query({ id, includeContent: true })).note.content, 'All about the Mountain');
  const stale = await refused(notes.update.mutate({ id, etag, title: 'Late' }), 'CONFLICT');
  assert.deepEqual([stale.reason, stale.metadata.etag], ['ETAG_MISMATCH', updated.note.etag]);
  const deleted = await notes.delete.mutate({ id, etag: updated.note.etag });
  assert(deleted.note.deleteTime, JSON.stringify(deleted));
  await refused(notes.get.query({ id }), 'NOT_FOUND');
  const undeleted = await notes.undelete.mutate({ id });
  assert.deepEqual([undeleted.note.version, undeleted.note.deleteTime], [4, undefined]);

  await refused(notes.create.mutate({ content: '' }), 'BAD_REQUEST', 'content');
  await refused(notes.update.mutate({ id }), 'BAD_REQUEST', 'input');
  await refused(notes.update.mutate({ id, content: '' }), 'BAD_REQUEST', 'content');
  await refused(notes.delete.mutate({ id: 'x' }), 'BAD_REQUEST', 'id');
  await refused(notes.search.query({ query: '' }), 'BAD_REQUEST', 'query');
  await refused(notes.get.query({ id: '0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60' }), 'NOT_FOUND');
  await refused(notes.nothing.query(), 'NOT_FOUND');
  const nobody = createTRPCClient({ links: [link({})] });
  await refused(nobody.notes.list.query({}), 'UNAUTHORIZED');
}

async function batches({ url, token }) {
  const links = [httpBatchLink({ url: `${url}/trpc`, headers: { authorization: `Bearer ${token}` } })];
  const { notes } = createTRPCClient({ links });
  const { note } = await notes.create.mutate({ title: 'Batch', content: 'one of many', autoEnrich: false });
  const [listed, found, missing, read] = await Promise.allSettled([
    notes.list.query({ pageSize: 1 }),
    notes.search.query({ query: 'many' }),
    notes.get.query({ id: '0193f6a0-7b1c-7d2e-8f3a-1b2c3d4e5f60' }),
    notes.get.query({ id: note.id, includeContent: true }),
  ]);
  assert.equal(listed.value.notes[0].id, note.id);
  assert.equal(found.value.results[0].note.id, note.id);
  assert.equal(missing.reason.data.code, 'NOT_FOUND');
  assert.equal(read.value.note.content, 'one of many');
  const updated = await notes.update.mutate({ id: note.id, title: 'Batches' });
  assert.deepEqual([updated.note.title, updated.note.version], ['Batches', 2]);
  assert((await notes.delete.mutate({ id: note.id })).note.deleteTime);
  await refused(notes.update.mutate({ id: note.id, title: 'Gone' }), 'NOT_FOUND');
  await refused(notes.create.mutate({ content: '' }), 'BAD_REQUEST', 'content');
}

const directory = await mkdtemp(join(tmpdir(), 'synap-trpc-'));
const up = spawn(synapctl, ['up', '--port-base', '0', '--data-dir', directory], { stdio: ['ignore', 'pipe', 'ignore'] });
const ended = new Promise((resolve) => up.once('exit', resolve));
try {
  const system = await ready(up);
  // Each call a request of its own, and calls of the same moment in one: what clients do unless told.
  await notes(httpLink, system);
  await batches(system);
} finally {
  up.kill('SIGTERM');
  await ended;
  await rm(directory, { recursive: true, force: true });
}
