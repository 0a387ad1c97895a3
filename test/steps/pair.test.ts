/** How the checks of a pair of target machines judge the output of Corosync, DRBD and Pacemaker. */
import { describe, expect, it } from 'vitest'
import type { Context } from '../../src/context.js'
import { pairsOf } from '../../src/lab/lab.js'
import { clusterConfiguration } from '../../src/machine/pair.js'
import { loadLab } from '../../src/registry.js'
import { configurationDiffers, copiesIn, readClusterState, votesIn } from '../../src/steps/pair-state.js'
import { servingMachine } from '../../src/steps/pair-members.js'
import { pairSteps } from '../../src/steps/pair.js'

const lab = await loadLab('iscsi-pair')
const pair = pairsOf(lab)[0]!

const quorum = (lines: readonly string[], quorate = 'Yes', votes = 3): string =>
  `Quorum information
------------------
Nodes:            2
Quorate:          ${quorate}

Votequorum information
----------------------
Expected votes:   3
Total votes:      ${String(votes)}
Flags:            Quorate Qdevice

Membership information
----------------------
    Nodeid      Votes    Qdevice Name
${lines.join('\n')}
`

const both = ['         1          1    A,V,NMW target1 (local)', '         2          1    A,V,NMW target2']

describe('the votes of a pair', () => {
  it('the votes of a pair are there when both machines and the third one vote', () => {
    expect(
      votesIn(quorum([...both, '         0          1            Qdevice']), pair.pair.machines),
    ).toEqual({
      ok: true,
      saw: 'quorate: Yes; votes: 3 of 3',
    })
  })

  it.each([
    ['the third machine has no vote', [...both, '         0          0            Qdevice'], 'Qdevice'],
    ['the third machine is not known', both, 'Qdevice'],
    ['the other machine is lost', [both[0]!, '         0          1            Qdevice'], 'target2'],
    [
      'the other machine does not reach the third one',
      [both[0]!, '         2          1    NA,V,NMW target2', '         0          1            Qdevice'],
      'target2',
    ],
  ])('the votes of a pair are not there when %s', (_, lines, missing) => {
    const { ok, saw } = votesIn(quorum(lines, 'Yes', lines.length), pair.pair.machines)
    expect(ok).toBe(false)
    expect(saw).toContain(`without a vote: ${missing}`)
  })
})

describe('the copies of a pair', () => {
  it('the copies of a pair are read from each line of /proc/drbd, with what is still to be copied', () => {
    expect(
      copiesIn(`version: 8.4.11 (api:1/proto:86-101)
built-in
 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----
    ns:0 nr:0 dw:0 dr:0 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0
 1: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----
    ns:0 nr:0 dw:0 dr:0 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:90112
	[>....................] sync'ed:  6.3% (90112/95232)K
`),
    ).toEqual([
      {
        connection: 'Connected',
        roles: 'Primary/Secondary',
        disks: 'UpToDate/UpToDate',
        text: 'volume 0: Connected, Primary/Secondary, UpToDate/UpToDate',
      },
      {
        connection: 'SyncSource',
        roles: 'Primary/Secondary',
        disks: 'UpToDate/Inconsistent',
        text: 'volume 1: SyncSource, Primary/Secondary, UpToDate/Inconsistent, 6.3%',
      },
    ])
  })

  it('there are no copies of a pair when DRBD is down', () => {
    expect(copiesIn('version: 8.4.11\n 0: cs:Unconfigured\n')).toEqual([])
  })
})

/** The output of crm_mon of Pacemaker 3.0.0, shortened. */
const monitor = ({ address = 'target2', failures = '', standby = 'false' } = {}): string =>
  `<pacemaker-result api-version="2.38" request="crm_mon --one-shot --output-as=xml">
  <nodes>
    <node name="target1" id="1" online="true" standby="${standby}" standby_onfail="false" maintenance="false" pending="false" unclean="false" type="member"/>
    <node name="target2" id="2" online="true" standby="false" standby_onfail="false" maintenance="false" pending="false" unclean="false" type="member"/>
  </nodes>
  <resources>
    <resource id="power-target1" resource_agent="stonith:fence_redfish" role="Started" blocked="false" failed="false">
      <node name="target2" id="2" cached="true"/>
    </resource>
    <resource id="power-target2" resource_agent="stonith:fence_redfish" role="Started" blocked="false" failed="false">
      <node name="target1" id="1" cached="true"/>
    </resource>
    <clone id="copies" multi_state="true">
      <resource id="disk" resource_agent="ocf:linbit:drbd" role="Promoted" blocked="false" failed="false">
        <node name="target2" id="2" cached="true"/>
      </resource>
      <resource id="disk" resource_agent="ocf:linbit:drbd" role="Unpromoted" blocked="false" failed="false">
        <node name="target1" id="1" cached="true"/>
      </resource>
    </clone>
    <group id="serving" number_resources="2">
      <resource id="target" resource_agent="ocf:lab:target" role="Started" blocked="false" failed="false">
        <node name="target2" id="2" cached="true"/>
      </resource>
      ${
        address === ''
          ? '<resource id="address" resource_agent="ocf:heartbeat:IPaddr2" role="Stopped" blocked="false" failed="false"/>'
          : `<resource id="address" resource_agent="ocf:heartbeat:IPaddr2" role="Started" blocked="false" failed="false"><node name="${address}" id="2"/></resource>`
      }
    </group>
  </resources>
  <node_attributes><node name="target1"><attribute name="master-disk" value="10000"/></node></node_attributes>
  <failures>${failures}</failures>
</pacemaker-result>`

/** Machines that answer according to the question. */
const answering = (answers: (machine: string, command: string) => string | undefined): Context =>
  ({
    lab,
    signal: new AbortController().signal,
    machine: (name: string) => {
      const run = ({ text }: { text: string }): Promise<string> => {
        const said = answers(name, text)
        return said === undefined ? Promise.reject(new Error(`${name} is off`)) : Promise.resolve(said)
      }
      return {
        run,
        try: async (command: { text: string }) => ({ exitCode: 0, stdout: await run(command), stderr: '' }),
      }
    },
  }) as unknown as Context

const check = (id: string) => {
  const found = pairSteps(lab, pair)
    .flatMap(({ checks }) => checks)
    .find((each) => each.id === id)
  if (!found) throw new Error(`no check ${id}`)
  return found
}

describe("Pacemaker's view of a pair", () => {
  it('the check of Pacemaker passes when each resource is where it should be', async () => {
    expect((await check('target00-resources').probe(answering(() => monitor()))).ok).toBe(true)
  })

  it.each([
    ['the address is not where the disks are', monitor({ address: 'target1' }), 'address is elsewhere'],
    ['nobody has the address', monitor({ address: '' }), 'address is elsewhere'],
    ['a machine is set aside', monitor({ standby: 'true' }), 'target1 is not online'],
  ])('the check of Pacemaker fails when %s', async (_, xml, saw) => {
    const verdict = await check('target00-resources').probe(answering(() => xml))
    expect(verdict.ok).toBe(false)
    expect(verdict.saw).toContain(saw)
  })

  it('the check of Pacemaker names each failed action', async () => {
    const failure =
      '<failure op_key="disk_promote_0" node="target1" exitstatus="Error occurred" exitreason="" exitcode="1"/>'
    expect(readClusterState(monitor({ failures: failure })).failures).toEqual([
      'disk_promote_0 on target1: Error occurred',
    ])
    expect((await check('target00-failures').probe(answering(() => monitor({ failures: failure })))).ok).toBe(
      false,
    )
  })

  it('the check of Pacemaker asks the second machine when the first one is off', async () => {
    const context = answering((machine) => (machine === 'target1' ? undefined : monitor()))
    expect((await check('target00-failures').probe(context)).ok).toBe(true)
  })
})

describe('the active machine', () => {
  const has =
    (...names: readonly string[]) =>
    (machine: string): string =>
      names.includes(machine) ? 'vec0 UNKNOWN 192.168.56.70/24' : ''

  it('the active machine of a pair is the one that has the address', async () => {
    expect(await servingMachine(answering(has('target2')), pair)).toBe('target2')
  })

  it.each([
    ['neither has it', [], 'neither target1 nor target2'],
    ['both have it', ['target1', 'target2'], 'both target1 and target2'],
  ])('no machine of a pair is the active one when %s', async (_, names, message) => {
    await expect(servingMachine(answering(has(...names)), pair)).rejects.toThrow(message)
  })
})

describe('the configuration of Pacemaker', () => {
  const wanted = clusterConfiguration(lab, pair, { gateway: '192.168.56.1', username: 'lab' })

  it('the configuration of Pacemaker is as wanted when Pacemaker has added only its own entries', () => {
    const has = wanted.replace(
      '</crm_config>',
      '<cluster_property_set id="cib-bootstrap-options"><nvpair id="cib-bootstrap-options-dc-version" name="dc-version" value="3.0.0"/></cluster_property_set></crm_config>',
    )
    expect(configurationDiffers(wanted, has)).toEqual({ ok: true, saw: 'as wanted' })
  })

  it('the configuration of Pacemaker is as wanted when a machine was standby once, and is no longer', () => {
    const left = (inside: string): string =>
      wanted.replace(
        '<node id="1" uname="target1"/>',
        `<node id="1" uname="target1"><instance_attributes id="nodes-1">${inside}</instance_attributes></node>`,
      )
    expect(configurationDiffers(wanted, left(''))).toEqual({ ok: true, saw: 'as wanted' })
    expect(
      configurationDiffers(wanted, left('<nvpair id="nodes-1-standby" name="standby" value="on"/>')).saw,
    ).toContain('left over: nvpair id=nodes-1-standby name=standby value=on')
  })

  it('the check of the configuration of Pacemaker names what a person has changed', () => {
    const has = wanted.replace('name="stonith-enabled" value="true"', 'name="stonith-enabled" value="false"')
    const { ok, saw } = configurationDiffers(wanted, has)
    expect(ok).toBe(false)
    expect(saw).toContain('left over: nvpair id=options-stonith-enabled name=stonith-enabled value=false')
  })

  it('the check of the configuration of Pacemaker says which copy is outdated', () => {
    const has = wanted.replace(
      '</constraints>',
      '<rsc_location id="outdated-target1" rsc="copies" role="Promoted" node="target1" score="-INFINITY"/></constraints>',
    )
    expect(configurationDiffers(wanted, has)).toEqual({
      ok: false,
      saw: 'the copy of target1 is outdated, and is not served until it has caught up',
    })
  })

  it('the check of the configuration of Pacemaker names what a person has added, such as a ban', () => {
    const has = wanted.replace(
      '</constraints>',
      '<rsc_location id="cli-ban-serving" rsc="serving" node="target1" score="-INFINITY"/></constraints>',
    )
    expect(configurationDiffers(wanted, has).saw).toContain('left over: rsc_location id=cli-ban-serving')
  })

  it('a missing configuration of Pacemaker is reported', () => {
    expect(configurationDiffers(wanted, '<configuration/>').ok).toBe(false)
  })

  it('the configuration of Pacemaker fences with the power switches, and never without them', () => {
    expect(wanted).toContain('name="stonith-enabled" value="true"')
    expect(wanted.match(/type="fence_redfish"/g)).toHaveLength(2)
  })
})
