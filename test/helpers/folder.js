import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
/** A folder of the test's own, gone when it ends. Its path is short: Unix sockets go in there. */
export const temporaryFolder = async () => {
    const folder = await mkdtemp(join(tmpdir(), 'lab-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    return folder;
};
