-- Look-alikes of PostgreSQL's functions, operators and types, made by whoever runs this, in a schema evil. Each springs a trap that no rollback
-- undoes. {names} stands for the functions' names.
SET check_function_bodies = off;
SET client_min_messages = warning;
CREATE SCHEMA trap;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
CREATE SEQUENCE trap.sprung;
GRANT USAGE ON SEQUENCE trap.sprung TO PUBLIC;
CREATE FUNCTION trap.spring(what text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN
    PERFORM nextval('trap.sprung');
    RAISE EXCEPTION 'captured by %', what;
END $$;
CREATE SCHEMA evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;

DO $$
DECLARE
    -- Of all that our statements have to do with, and more.
    types regtype[] := '{boolean,smallint,integer,bigint,numeric,double precision,text,varchar,name,"char",bytea,timestamptz,timestamp,interval,jsonb,
        json,oid,xid,regclass,regtype,text[],smallint[],integer[],bigint[],timestamptz[],boolean[],bytea[],oid[],name[]}';
    one regtype; two regtype; three regtype; name name; op text; proc record; signature text;
    body CONSTANT text := 'BEGIN PERFORM trap.spring(%L); RETURN NULL; END';
BEGIN
    FOREACH one IN ARRAY types LOOP
        FOREACH two IN ARRAY types LOOP
            EXECUTE format('CREATE FUNCTION evil.compare(%s, %s) RETURNS boolean LANGUAGE plpgsql AS %L', one, two, format(body, 'a comparison'));
            EXECUTE format('CREATE FUNCTION evil.combine(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', one, two, one, format(body, 'an operator'));
            FOREACH op IN ARRAY '{=,<>,<,>,<=,>=,~,~~,@>,&&,?}'::text[] LOOP
                EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.compare)', op, one, two);
            END LOOP;
            FOREACH op IN ARRAY '{+,-,*,/,||,->,->>,#>,#-}'::text[] LOOP
                EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.combine)', op, one, two);
            END LOOP;
        END LOOP;
    END LOOP;
    FOR proc IN
        -- The numbers of arguments that a function of the name takes, as far as few.
        SELECT DISTINCT p.proname AS name, n AS number FROM pg_proc p, generate_series(0, 3) AS n
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY ('{names}') AND p.prokind <> 'p'
            AND CASE WHEN p.provariadic = 0 THEN n BETWEEN p.pronargs - p.pronargdefaults AND p.pronargs ELSE n >= p.pronargs - 1 END
    LOOP
        FOR signature IN
            SELECT '' WHERE proc.number = 0
            UNION ALL SELECT a::text FROM unnest(types) a WHERE proc.number = 1
            UNION ALL SELECT concat_ws(', ', a, b) FROM unnest(types) a, unnest(types) b WHERE proc.number = 2
            UNION ALL SELECT concat_ws(', ', a, b, c)
                FROM unnest('{text,jsonb,text[],integer,boolean}'::regtype[]) a, unnest('{text,jsonb,text[],integer}'::regtype[]) b,
                    unnest('{text,jsonb,boolean,integer}'::regtype[]) c
                WHERE proc.number = 3
        LOOP
            EXECUTE format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', proc.name, signature,
                coalesce(nullif(split_part(signature, ', ', 1), ''), 'text'), format(body, proc.name));
        END LOOP;
    END LOOP;
    FOREACH one IN ARRAY types LOOP
        IF one::text !~ '\[' THEN
            SELECT typname INTO name FROM pg_type WHERE oid = one;
            EXECUTE format('CREATE DOMAIN evil.%I AS text CHECK (trap.spring(%L))', name, name);
        END IF;
    END LOOP;
    FOREACH name IN ARRAY '{regproc,regprocedure,regnamespace}'::name[] LOOP
        EXECUTE format('CREATE DOMAIN evil.%I AS text CHECK (trap.spring(%L))', name, name);
    END LOOP;
END $$;

CREATE TYPE evil.mood AS ENUM ('sad');
CREATE FUNCTION evil.to_mood(text) RETURNS evil.mood LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring('a cast'); RETURN NULL; END $$;
CREATE FUNCTION evil.from_mood(evil.mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.spring('a cast'); RETURN NULL; END $$;
CREATE CAST (text AS evil.mood) WITH FUNCTION evil.to_mood AS IMPLICIT;
CREATE CAST (evil.mood AS text) WITH FUNCTION evil.from_mood AS IMPLICIT;
