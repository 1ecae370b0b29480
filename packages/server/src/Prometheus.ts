/**
 * Effect's metrics as Prometheus reads them: its text format, version 0.0.4.
 *
 * @see https://prometheus.io/docs/instrumenting/exposition_formats/
 */
import type * as MetricPair from "effect/MetricPair"
import * as MetricState from "effect/MetricState"
import * as Option from "effect/Option"

/** What an answer in this format is sent as. */
export const contentType = "text/plain; version=0.0.4; charset=utf-8"

const escapeHelp = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")
const escapeLabel = (text: string): string => escapeHelp(text).replaceAll("\"", "\\\"")

const numberOf = (value: number | bigint): string =>
  value === Infinity ? "+Inf" : value === -Infinity ? "-Inf" : String(value)

type Label = readonly [key: string, value: string]

const sample = (name: string, labels: ReadonlyArray<Label>, value: number | bigint): string => {
  const braced = labels.length === 0
    ? ""
    : `{${labels.map(([key, text]) => `${key}="${escapeLabel(text)}"`).join(",")}}`
  return `${name}${braced} ${numberOf(value)}\n`
}

const typeOf = ({ metricState }: MetricPair.MetricPair.Untyped): "counter" | "gauge" | "histogram" => {
  if (MetricState.isCounterState(metricState)) return "counter"
  if (MetricState.isGaugeState(metricState)) return "gauge"
  if (MetricState.isHistogramState(metricState)) return "histogram"
  throw new Error("Only counters, gauges and histograms have a form here")
}

const samplesOf = ({ metricKey: { name, tags }, metricState }: MetricPair.MetricPair.Untyped): string => {
  const labels = tags.map(({ key, value }): Label => [key, value]).sort(([a], [b]) => a < b ? -1 : 1)
  if (MetricState.isCounterState(metricState) || MetricState.isGaugeState(metricState)) {
    return sample(name, labels, MetricState.isCounterState(metricState) ? metricState.count : metricState.value)
  }
  if (!MetricState.isHistogramState(metricState)) return ""
  const { buckets, count, sum } = metricState
  return [
    // The last bucket has no bound: what is in it are all.
    ...buckets.filter(([bound]) => bound !== Infinity).map(([bound, below]) =>
      sample(`${name}_bucket`, [...labels, ["le", numberOf(bound)]], below)
    ),
    sample(`${name}_bucket`, [...labels, ["le", "+Inf"]], count),
    sample(`${name}_sum`, labels, sum),
    sample(`${name}_count`, labels, count)
  ].join("")
}

/** The text of metrics, by name, so that those of one name stand together. A metric without a unit of its own is a programmer's error. */
export const render = (pairs: Iterable<MetricPair.MetricPair.Untyped>): string => {
  const families = new Map<string, Array<MetricPair.MetricPair.Untyped>>()
  for (const pair of pairs) {
    const { name } = pair.metricKey
    const family = families.get(name)
    if (family === undefined) families.set(name, [pair])
    else family.push(pair)
  }
  return Array.from(families).sort(([a], [b]) => a < b ? -1 : 1).map(([name, family]) => {
    const [first] = family
    const help = Option.match(first!.metricKey.description, {
      onNone: () => "",
      onSome: (text) => `# HELP ${name} ${escapeHelp(text)}\n`
    })
    const samples = family.map(samplesOf).sort()
    return `${help}# TYPE ${name} ${typeOf(first!)}\n${samples.join("")}`
  }).join("")
}
