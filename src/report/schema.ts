/** The schema of a report, on which programs that read it can rely. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { projectRoot } from '../package.js'

const iso = z.iso.datetime()

const ms = z.number()

const verdict = z.enum(['PASS', 'FAIL', 'UNKNOWN'])

const operation = z.enum(['write', 'read'])

const medium = z.enum(['row', 'file', 'config'])

const tally = z.object({
  sent: z.int(),
  acknowledged: z.int(),
  unanswered: z.int(),
  unansweredButThere: z.int(),
})

const sign = z
  .object({
    title: z.string().meta({ description: 'What was checked.' }),
    ok: z.boolean(),
    saw: z.string(),
    at: iso,
    ms: ms.meta({ description: 'Milliseconds since it was injected.' }),
  })
  .nullable()
  .default(null)

/** A field that does not apply is null, never absent. Fields may be added within v1. */
export const runSchema = z
  .object({
    schema: z.literal('lab.run/v1'),
    lab: z.string(),
    of: z
      .string()
      .nullable()
      .default(null)
      .meta({ description: 'The lab that defines the experiment; null: the lab whose machines it ran on.' }),
    scenario: z.object({ name: z.string(), description: z.string() }),
    started: iso,
    seconds: z.number(),
    interrupted: z.boolean().meta({ description: 'The run was interrupted.' }),
    provider: z.string(),
    failover: z.enum(['default', 'fast']),
    fencing: z.enum(['none', 'storage', 'power']),
    versions: z.record(z.string(), z.string()).meta({ description: 'The version of each component.' }),
    host: z
      .object({
        processors: z.int(),
        nodeStart: ms.meta({
          description: 'Milliseconds that an empty Node.js program took before the run: the median of three.',
        }),
      })
      .nullable()
      .default(null)
      .meta({ description: 'How fast the host was; null: it was not measured.' }),
    verdict: verdict.meta({ description: 'The worst outcome of all checks.' }),
    faults: z
      .array(
        z.object({
          fault: z.string(),
          on: z.array(z.string()).meta({ description: 'Names of the machines.' }),
          detail: z.string(),
          injected: iso.nullable(),
          healed: iso.nullable(),
          error: z.string().nullable(),
          acting: sign.meta({ description: 'Evidence that it acts; null: nothing was observed.' }),
          gone: sign.meta({
            description: 'Evidence that it is gone after it was undone; null: nothing was observed.',
          }),
        }),
      )
      .meta({ description: 'What was to be injected, in order.' }),
    checks: z
      .array(
        z.object({
          group: z.enum(['before', 'faults', 'claims', 'data', 'budgets', 'after']),
          title: z.string(),
          machine: z.string().nullable(),
          outcome: z.enum(['passed', 'failed', 'unknown']),
          saw: z.string(),
        }),
      )
      .meta({ description: 'Everything that the verdict rests on, with evidence.' }),
    looks: z
      .array(
        z.object({
          when: z.enum(['before', 'after']),
          at: iso,
          ms: ms.meta({ description: 'Milliseconds since the first check of its series began.' }),
          no: z
            .array(z.object({ title: z.string(), machine: z.string().nullable(), saw: z.string() }))
            .meta({ description: 'The checks that failed.' }),
        }),
      )
      .default([])
      .meta({ description: 'Each time that all checks were asked, until all passed at once.' }),
    recovery: z
      .object({
        by: z.enum(['itself', 'heal']).nullable().meta({
          description: 'What made the database answer writes again; null: nothing did, or it is unknown.',
        }),
        ms: ms.nullable().meta({
          description:
            'Milliseconds from the fault until writes were answered for good; null: they were not, without healing.',
        }),
      })
      .nullable()
      .default(null)
      .meta({
        description:
          'Whether the lab recovered from the faults; null: there were none, or it is not a scenario.',
      }),
    budgets: z.array(
      z.object({
        name: z.enum(['writeGap', 'readGap', 'notReady', 'takeover', 'apiGap']),
        wanted: ms
          .nullable()
          .meta({ description: 'Milliseconds; null: no limit, the value is only measured.' }),
        measured: ms.nullable().meta({ description: 'Milliseconds; null: it was not seen.' }),
        atLeast: z.boolean().meta({ description: 'It had not ended when the run did.' }),
      }),
    ),
    moments: z
      .array(
        z.object({
          name: z.enum(['t0', 't1', 't2', 't3', 't4', 't5', 't6']),
          title: z.string(),
          at: iso.nullable(),
          ms: ms.nullable().meta({ description: 'Milliseconds since the fault; null: it was not seen.' }),
          uncertainty: ms.nullable().meta({ description: 'Uncertainty in milliseconds, plus or minus.' }),
          source: z.string().nullable(),
          detail: z.string().nullable(),
        }),
      )
      .meta({ description: 't0 to t6, all of them; none if nothing was recorded, as in an experiment.' }),
    events: z
      .array(z.object({ type: z.string(), at: iso, ms, source: z.string(), detail: z.string() }))
      .meta({ description: "Everything that was seen, by this host's clock." }),
    undated: z
      .array(z.object({ type: z.string(), at: z.string(), source: z.string(), detail: z.string() }))
      .meta({ description: 'Seen by a source whose clock was not measured.' }),
    skews: z
      .record(z.string(), z.object({ ms, uncertainty: ms }))
      .meta({ description: 'How far the clock of each source is ahead, in milliseconds.' }),
    data: z
      .object({
        findings: z.array(
          z.object({
            kind: z.enum(['LOST', 'CORRUPT', 'DOUBLE WRITER']),
            medium,
            message: z.string(),
            seqs: z.array(z.int()),
            evidence: z.array(z.string()),
          }),
        ),
        unknown: z.array(z.string()).meta({ description: 'Why the result is unknown.' }),
        tally: z.object({
          row: tally,
          file: tally,
          config: tally.optional().meta({ description: 'ConfigMaps, if they were written.' }),
        }),
        readBack: z
          .object({
            how: z.string().meta({ description: 'How the data was read, with evidence.' }),
            fromDisk: z.boolean().meta({
              description: 'None of it can have come from the memory of the server that wrote it.',
            }),
            seconds: z.number().meta({ description: 'Seconds that reading back added to the run.' }),
          })
          .nullable()
          .default(null)
          .meta({
            description: 'Where the data that was read back came from; null: it was not established.',
          }),
        torn: z.string().nullable().meta({ description: 'A last line of the ledger that was cut short.' }),
        ended: ms.meta({ description: 'Milliseconds from the fault to the last record.' }),
        gaps: z
          .array(
            z.object({
              client: z.string(),
              operation,
              medium,
              begin: iso,
              end: iso,
              from: ms,
              length: ms,
              open: z.boolean(),
            }),
          )
          .meta({
            description: 'The longest of each client; `from` and `length` in ms, `from` since the fault.',
          }),
        answers: z
          .array(z.object({ client: z.string(), operation, medium, spans: z.array(z.tuple([ms, ms])) }))
          .meta({ description: 'When clients were answered: spans in ms since the fault.' }),
      })
      .nullable()
      .meta({ description: 'What the ledger shows; null: there was no ledger.' }),
    figures: z
      .array(
        z.object({
          title: z.string(),
          ms: ms.meta({ description: 'Milliseconds.' }),
          seed: z
            .object({ ms, how: z.string() })
            .nullable()
            .meta({ description: 'What the walkthrough measured; null: nothing comparable.' }),
        }),
      )
      .default([])
      .meta({ description: 'What an experiment or an exercise measured.' }),
    seed: z
      .object({ ms, how: z.string() })
      .nullable()
      .meta({ description: 'What the walkthrough of 2018 measured by hand for the same fault.' }),
  })
  .meta({ title: 'A report of lab run' })

/** The JSON Schema of a report, for programs that read it. */
export const runJsonSchema = (): object => z.toJSONSchema(runSchema, { target: 'draft-7' })

export const runSchemaFile = join(projectRoot, 'schemas', 'run.schema.json')

/** Writes `schemas/run.schema.json`, for `npm run generate`. */
export const writeRunSchema = (): void => {
  writeFileSync(runSchemaFile, `${JSON.stringify(runJsonSchema(), null, 2)}\n`)
}

export type RunReport = z.output<typeof runSchema>

export type RunCheck = RunReport['checks'][number]
