/** What is above a dashboard in Grafana: its name, the time range, the variables and the links. */
import { Icon, InlineField, InlineFieldRow, Input, RefreshPicker, TimeRangePicker, ToolbarButton, useStyles2 } from '@grafana/ui';
import { css } from '@emotion/css';

const nothing = () => undefined;

const stylesOf = (theme) => ({
  bar: css({
    alignItems: 'center',
    background: theme.colors.background.primary,
    borderBottom: `1px solid ${theme.colors.border.weak}`,
    display: 'flex',
    gap: theme.spacing(1),
    height: 48,
    padding: theme.spacing(0, 2),
  }),
  quiet: css({ color: theme.colors.text.secondary }),
  grow: css({ flexGrow: 1 }),
  controls: css({
    display: 'flex',
    gap: theme.spacing(1),
    padding: theme.spacing(2, 2, 0, 2),
  }),
});

function Variable({ label, text }) {
  return (
    <InlineField label={label} labelWidth="auto">
      <Input
        readOnly
        value={text}
        suffix={<Icon name="angle-down" />}
        width={Math.max(11, Math.ceil(text.length) + 5)}
      />
    </InlineField>
  );
}

export function Header({ dashboard, timeRange, timeZone }) {
  const styles = useStyles2(stylesOf);
  return (
    <div style={{ height: dashboard.top }}>
      <div className={styles.bar}>
        <Icon name="grafana" size="xl" />
        <span className={styles.quiet}>Dashboards</span>
        <Icon name="angle-right" className={styles.quiet} />
        <span>{dashboard.title}</span>
        <div className={styles.grow} />
        <TimeRangePicker
          value={timeRange}
          timeZone={timeZone}
          onChange={nothing}
          onChangeTimeZone={nothing}
          onMoveBackward={nothing}
          onMoveForward={nothing}
          onZoom={nothing}
        />
        <RefreshPicker value={dashboard.refresh} onIntervalChanged={nothing} onRefresh={nothing} />
      </div>
      <div className={styles.controls}>
        <InlineFieldRow>
          {dashboard.variables.map(({ name, label, text }) => (
            <Variable key={name} label={label} text={text} />
          ))}
        </InlineFieldRow>
        <div className={styles.grow} />
        {dashboard.links.map(({ title, icon, asDropdown }) => (
          <ToolbarButton key={title} icon={asDropdown ? 'bars' : icon} variant="canvas" isOpen={asDropdown ? false : undefined}>
            {title}
          </ToolbarButton>
        ))}
      </div>
    </div>
  );
}
