/** From answers of Prometheus to the frames that Grafana's components draw, by the panel's field configuration. */
import {
  FieldType,
  Registry,
  applyFieldOverrides,
  toDataFrame,
} from '@grafana/data';

/** Options of a field that every panel has; all others are `custom` ones of its type. */
const STANDARD = [
  'unit', 'min', 'max', 'decimals', 'displayName', 'color', 'thresholds', 'mappings', 'links', 'noValue', 'fieldMinMax',
];

const option = (id, path, isCustom) => ({ id, path, name: id, isCustom, process: (value) => value, shouldApply: () => true });

/** The registry by which defaults and overrides are applied: what the panel itself uses, and no other. */
function registryOf({ defaults, overrides = [] }) {
  const custom = new Set(Object.keys(defaults.custom ?? {}));
  for (const { properties } of overrides) {
    for (const { id } of properties) {
      if (id.startsWith('custom.')) {
        custom.add(id.slice('custom.'.length));
      } else if (!STANDARD.includes(id)) {
        throw new Error(`an override of ${id} is not drawn`);
      }
    }
  }
  return new Registry(() => [
    ...STANDARD.map((name) => option(name, name, false)),
    ...[...custom].map((name) => option(`custom.${name}`, name, true)),
  ]);
}

/** One frame for each series, as Grafana's data source for Prometheus makes them. */
function rawFrames(panel) {
  return panel.queries.flatMap(({ refId, interval, times, series }) =>
    series.map(({ name, labels, values }) =>
      toDataFrame({
        refId,
        name,
        fields: [
          { name: 'Time', type: FieldType.time, config: { interval }, values: times },
          { name: 'Value', type: FieldType.number, labels, config: { displayNameFromDS: name }, values },
        ],
      })
    )
  );
}

/** Returns the frames of a panel, with colours, units, thresholds and overrides applied. */
export function framesOf(panel, theme, timeZone) {
  return applyFieldOverrides({
    data: rawFrames(panel),
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registryOf(panel.fieldConfig),
    replaceVariables: (text) => text,
    theme,
    timeZone,
  });
}
