/** The built command line as a user runs it, with a state folder of its own; parts come from the real cache. */
import { mkdtempSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { parse, stringify } from 'yaml';
import { readFileSync } from 'node:fs';
/** LAB_CLI: another build of it, for trying things. */
export const cli = process.env['LAB_CLI'] ?? fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const shipped = (name) => fileURLToPath(new URL(`../../labs/${name}.yaml`, import.meta.url));
export class Bench {
    // /var/tmp: a lab's folder holds Unix sockets, whose names must be short, and gigabytes, which a tmpfs need not hold.
    folder = mkdtempSync(join('/var/tmp', 'lab-e2e-'));
    env = { LAB_STATE: join(this.folder, 'state'), NO_COLOR: '1' };
    async lab(...args) {
        const options = { env: this.env, reject: false, stdin: 'ignore', cwd: this.folder };
        const { exitCode = 128, stdout, stderr } = await execa(process.execPath, [cli, ...args], options);
        return { exitCode, stdout, stderr };
    }
    /** Runs a command that must succeed; everything it printed is in the error when it does not. */
    async ok(...args) {
        const result = await this.lab(...args);
        if (result.exitCode !== 0)
            throw new Error(`lab ${args.join(' ')}: exit code ${String(result.exitCode)}\n${result.stdout}\n${result.stderr}`);
        return result.stdout;
    }
    async json(...args) {
        return JSON.parse((await this.lab(...args, '-o', 'json')).stdout);
    }
    /** Ids of the checks that say no. */
    async complaints(lab) {
        const report = await this.json('verify', lab);
        return report.results.flatMap(({ checks }) => checks.filter(({ ok }) => !ok).map(({ id }) => id));
    }
    /** Ids of the steps that `up` changed. */
    async up(lab) {
        const result = await this.lab('up', lab, '-o', 'json');
        const report = JSON.parse(result.stdout);
        const failed = report.results.filter(({ outcome }) => outcome !== 'ok' && outcome !== 'changed');
        if (failed.length > 0 || result.exitCode !== 0)
            throw new Error(`lab up ${lab}: ${failed.map(({ step, reason }) => `${step}: ${reason ?? ''}`).join('\n')}\n${result.stderr}`);
        return report.results.filter(({ outcome }) => outcome === 'changed').map(({ step }) => step);
    }
    /** A shipped lab with changes, as a file of its own. */
    async variant(from, name, change) {
        const lab = parse(readFileSync(shipped(from), 'utf8'));
        lab.name = name;
        change(lab);
        const file = join(this.folder, `${name}.yaml`);
        await writeFile(file, stringify(lab));
        return file;
    }
    async close() {
        await rm(this.folder, { recursive: true, force: true });
    }
}
